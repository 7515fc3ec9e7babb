/** Headers of safetensors files on disk; the data stays where it is. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { StartupError } from "../errors.js";
import { reasonOf } from "./json.js";
import {
  headerLength,
  LENGTH_BYTES,
  parseHeader,
  type SafetensorsContent,
  SafetensorsError,
} from "./safetensors-header.js";

export interface SafetensorsHeader extends SafetensorsContent {
  /** The header as it stands in the file. */
  bytes: Uint8Array;
}

/** Reads and checks a header; throws a StartupError that names the file and the tensor. */
export function readSafetensorsHeader(path: string): SafetensorsHeader {
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    throw new StartupError(`${path}: cannot be opened: ${reasonOf(error)}`);
  }
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) throw new StartupError(`${path}: not a file`);
    const start = readAt(descriptor, LENGTH_BYTES, 0);
    const bytes = readAt(descriptor, headerLength(start, status.size), LENGTH_BYTES);
    return { ...parseHeader(bytes, status.size), bytes };
  } catch (error) {
    if (error instanceof StartupError) throw error;
    const verb = error instanceof SafetensorsError ? "" : "cannot be read: ";
    throw new StartupError(`${path}: ${verb}${reasonOf(error)}`);
  } finally {
    closeSync(descriptor);
  }
}

function readAt(descriptor: number, size: number, offset: number): Uint8Array {
  const bytes = Buffer.alloc(size);
  return bytes.subarray(0, readSync(descriptor, bytes, 0, size, offset));
}
