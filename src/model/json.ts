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
