/**
 * The manifest of a directory store: one line for each write, appended and never changed.
 *
 *   {"sha256":"<64 hex digits of the entry's text>","entry":{…}}\n
 *
 * The first entry names the format, the others have revisions 1, 2, 3, …
 */
import { createHash } from "node:crypto";
import { isObject, type JsonObject } from "../../model/json.js";
import { type Entry, entrySchema } from "../entry.js";

/** Something that no crash of this program leaves behind. */
export class ManifestError extends Error {
  override readonly name = "ManifestError";
}

export interface ParsedManifest {
  entries: Entry[];
  /** Up to here the file is whole; what follows is an append that a crash cut short. */
  goodBytes: number;
}

const FIRST_ENTRY = { format: "llama-steer vector registry", version: 1 };
const LINE = /^\{"sha256":"([0-9a-f]{64})","entry":(.*)\}$/s;
const NEWLINE = 0x0a;

export const FIRST_LINE = encodeLine(FIRST_ENTRY);

export function encodeEntry(entry: Entry): Uint8Array {
  return encodeLine(entry);
}

function encodeLine(entry: object): Uint8Array {
  const text = JSON.stringify(entry);
  return Buffer.from(`{"sha256":"${sha256(text)}","entry":${text}}\n`);
}

/** Throws a ManifestError that names the line. */
export function parseManifest(bytes: Uint8Array): ParsedManifest {
  const entries: Entry[] = [];
  let start = 0;
  for (let line = 1; start < bytes.length; line += 1) {
    const end = bytes.indexOf(NEWLINE, start);
    const raw = bytes.subarray(start, end < 0 ? bytes.length : end);
    // A file that grew before its bytes were written ends in zeros.
    const isLast = end < 0 || end === bytes.length - 1;
    if (end < 0 || (isLast && raw.includes(0))) break;
    const json = checkedJson(raw, line);
    if (line === 1) checkFirst(json);
    else entries.push(checkedEntry(json, line));
    start = end + 1;
  }
  if (start === 0) throw new ManifestError("line 1: the file has no first line");
  return { entries, goodBytes: start };
}

function checkedJson(raw: Uint8Array, line: number): JsonObject {
  const [, sum, text = ""] = LINE.exec(Buffer.from(raw).toString("utf8")) ?? [];
  if (sum === undefined || sha256(text) !== sum) {
    throw new ManifestError(`line ${line}: damaged: its checksum does not fit`);
  }
  const json: unknown = JSON.parse(text);
  if (!isObject(json)) throw new ManifestError(`line ${line}: not an object`);
  return json;
}

function checkFirst(json: JsonObject): void {
  if (json["format"] !== FIRST_ENTRY.format || json["version"] !== FIRST_ENTRY.version) {
    throw new ManifestError(
      `line 1: ${JSON.stringify(json)} is not ${JSON.stringify(FIRST_ENTRY)}: written by another version?`,
    );
  }
}

function checkedEntry(json: JsonObject, line: number): Entry {
  const revision = line - 1;
  if (json["revision"] !== revision) {
    throw new ManifestError(
      `line ${line}: revision ${JSON.stringify(json["revision"])} where ${revision} is due: lines are missing or doubled`,
    );
  }
  const { data, error } = entrySchema.safeParse(json);
  if (data) return data;
  const [issue] = error.issues;
  throw new ManifestError(
    `line ${line}: not an entry of this version: ${issue?.path.join(".")}: ${issue?.message}`,
  );
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
