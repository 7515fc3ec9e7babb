/** The only place that opens a .node file. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { StartupError } from "../errors.js";
import { NATIVE_API_VERSION, type NativeBinding } from "./binding.js";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Where npm's builds and a plain CMake build put the addon. */
const PLACES = ["out/addon/Release/llama_steer.node", "out/native/llama_steer.node"];

/** `LLAMA_STEER_ADDON_PATH` overrides the places. Throws a StartupError that says what to do. */
export function addonFile(): string {
  const override = process.env["LLAMA_STEER_ADDON_PATH"];
  const candidates = override ? [override] : PLACES.map((place) => path.join(root, place));
  const file = candidates.find((candidate) => existsSync(candidate));
  if (!file) {
    throw new StartupError(
      `the addon is not built (looked for ${candidates.join(", ")}): npm run build:addon`,
    );
  }
  return file;
}

/** Throws a StartupError that says what to do. */
export function loadNativeBinding(): NativeBinding {
  const file = addonFile();
  let binding: NativeBinding;
  try {
    binding = createRequire(import.meta.url)(file);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartupError(`${file} cannot be loaded: ${reason}`);
  }
  if (binding.apiVersion !== NATIVE_API_VERSION) {
    throw new StartupError(
      `${file} has API version ${binding.apiVersion}, not ${NATIVE_API_VERSION}: npm run build:addon`,
    );
  }
  return binding;
}
