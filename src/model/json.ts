import { readFileSync } from "node:fs";
import { StartupError } from "../errors.js";

export type JsonObject = { [key: string]: unknown };

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads a JSON object; every failure names the file. */
export function readJsonObject(file: string, maxBytes = 256 << 20): JsonObject {
  let text: string;
  try {
    const bytes = readFileSync(file);
    if (bytes.length > maxBytes) {
      throw new StartupError(`${file}: ${bytes.length} bytes, more than the limit of ${maxBytes}`);
    }
    text = bytes.toString("utf8");
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`${file}: cannot be read: ${reasonOf(error)}`);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch (error) {
    throw new StartupError(`${file}: not JSON: ${reasonOf(error)}`);
  }
  throw new StartupError(`${file}: not a JSON object`);
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * The first key that an object of the text has twice; null: none. JSON.parse keeps the last of two
 * equal keys, which would hide a value. `text` is valid JSON.
 */
export function firstDuplicateKey(text: string): string | null {
  const open: Set<string>[] = [];
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "{") open.push(new Set());
    else if (character === "}") open.pop();
    if (character !== '"') continue;
    const begin = at;
    for (at += 1; text[at] !== '"'; at += 1) if (text[at] === "\\") at += 1;
    let next = at + 1;
    while (/\s/.test(text[next] ?? "")) next += 1;
    if (text[next] !== ":") continue;
    const key: string = JSON.parse(text.slice(begin, at + 1));
    const keys = open.at(-1);
    if (keys?.has(key)) return key;
    keys?.add(key);
  }
  return null;
}
