/** A study file with everything that it names, read and checked; nothing of a server. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { ContrastiveInput, ContrastivePair } from "../../client/client.js";
import type { StudyPrompt } from "../records.js";
import { parseStudy, StudyFileError } from "./parse.js";
import type { PromptSetConfig, StudyConfig, VectorConfig } from "./schema.js";

export interface LoadedStudy {
  /** Absolute. */
  file: string;
  text: string;
  config: StudyConfig;
  /** "sha256:…" of the file and of every file that it names for prompts and pairs. */
  digest: string;
  promptSets: Record<string, StudyPrompt[]>;
  /** By vector. */
  pairs: Record<string, ContrastivePair[]>;
  probe: { pairs: ContrastivePair[]; benign: ContrastiveInput[] } | undefined;
}

/** Paths in the study are relative to its file. Throws a StudyFileError. */
export function loadStudy(file: string): LoadedStudy {
  const absolute = path.resolve(file);
  const files = new FileReader(path.dirname(absolute));
  const text = files.read(absolute);
  const config = parseStudy(text, file);
  const { chat } = config.model;
  const promptSets = mapValues(config.prompts, (set, name) => readPrompts(files, name, set));
  const pairs = mapValues(config.vectors, (vector) => readPairs(files, vector));
  const { detection } = config;
  const probe = detection && {
    pairs: detection.pairs.map(({ prompt, positive, negative }) => ({
      positive: { ...inputOf(prompt, chat), completion: positive },
      negative: { ...inputOf(prompt, chat), completion: negative },
    })),
    benign: files
      .lines(detection.benign.file)
      .slice(0, detection.benign.limit)
      .map(({ value, place }) => inputOf(textOf(value, detection.benign.field, place), chat)),
  };
  return { file: absolute, text, config, digest: files.digest(), promptSets, pairs, probe };
}

/** A text as the model is asked it. */
export function inputOf(text: string, chat: boolean): { chat: object } | { prompt: string } {
  return chat ? { chat: { messages: [{ role: "user", content: text }] } } : { prompt: text };
}

function readPrompts(files: FileReader, set: string, config: PromptSetConfig): StudyPrompt[] {
  if (config.texts) {
    return config.texts.map((text, index) => {
      const id = `${set}-${String(index).padStart(3, "0")}`;
      return { id, task: id, text, function: null, kind: null };
    });
  }
  const { fields, where, limit } = config;
  const seen = new Set<string>();
  const prompts = files
    .lines(config.file ?? "")
    .filter(({ value }) => Object.entries(where).every(([key, wanted]) => value[key] === wanted))
    .slice(0, limit)
    .map(({ value, place }) => {
      const id = textOf(value, fields.id, place);
      if (seen.has(id)) throw new StudyFileError(`${place}: the id ${id} is there already`);
      seen.add(id);
      return {
        id,
        task: String(value[fields.task] ?? id),
        text: textOf(value, fields.text, place),
        function: optionalText(value, fields.function, place),
        kind: optionalText(value, fields.kind, place),
      };
    });
  if (prompts.length === 0) {
    throw new StudyFileError(`prompts.${set}: no line of ${config.file} is chosen`);
  }
  return prompts;
}

function readPairs(files: FileReader, { pairs, as_chat, limit }: VectorConfig): ContrastivePair[] {
  return files
    .lines(pairs)
    .slice(0, limit)
    .map(({ value, place }) => ({
      positive: inputOf(textOf(value, "positive", place), as_chat),
      negative: inputOf(textOf(value, "negative", place), as_chat),
    }));
}

interface JsonLine {
  value: Record<string, unknown>;
  /** FILE:LINE. */
  place: string;
}

/** Reads files once, and takes a digest of all that was read. */
class FileReader {
  readonly #folder: string;
  readonly #read = new Map<string, string>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  read(file: string): string {
    const absolute = path.resolve(this.#folder, file);
    let text = this.#read.get(absolute);
    if (text === undefined) {
      try {
        text = readFileSync(absolute, "utf8");
      } catch (error) {
        throw new StudyFileError((error as Error).message);
      }
      this.#read.set(absolute, text);
    }
    return text;
  }

  lines(file: string): JsonLine[] {
    const lines: JsonLine[] = [];
    for (const [index, line] of this.read(file).split("\n").entries()) {
      if (line.trim() === "") continue;
      const place = `${file}:${index + 1}`;
      lines.push({ value: parseObject(line, place), place });
    }
    if (lines.length === 0) throw new StudyFileError(`${file}: is empty`);
    return lines;
  }

  /** Over contents in the order of their first reading; where the files lie makes no difference. */
  digest(): string {
    const hash = createHash("sha256");
    for (const text of this.#read.values()) {
      const bytes = Buffer.from(text);
      hash.update(`${bytes.length}\n`).update(bytes);
    }
    return `sha256:${hash.digest("hex")}`;
  }
}

function parseObject(line: string, place: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch {
    // Said below.
  }
  throw new StudyFileError(`${place}: is no JSON object`);
}

function textOf(value: Record<string, unknown>, field: string, place: string): string {
  const text = value[field];
  if (typeof text === "string" && text !== "") return text;
  throw new StudyFileError(`${place}: "${field}" is no text, or empty`);
}

function optionalText(value: Record<string, unknown>, field: string, place: string): string | null {
  return value[field] === undefined || value[field] === null ? null : textOf(value, field, place);
}

function mapValues<A, B>(
  record: Readonly<Record<string, A>>,
  map: (value: A, key: string) => B,
): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value, key)]));
}
