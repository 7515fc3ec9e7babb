/** Which format a file has, by its first bytes; and which it must not have. */
import { type FileFormat, VectorFileError } from "./file.js";
import { isSvec } from "./json-rows.js";
import { zipNames } from "./zip.js";

const ADVICE =
  "a pickle can run code and is never read. In Python: " +
  "from safetensors.torch import save_file; " +
  'save_file({f"layer.{n}": row.float().contiguous() for n, row in rows.items()}, "vector.safetensors")';

const ZIP = Buffer.from("PK\x03\x04", "latin1");
const PICKLE = 0x80;
const MAX_PICKLE_PROTOCOL = 5;
const TAR_MAGIC_OFFSET = 257;
const OPEN_BRACE = 0x7b;
const WHITE_SPACE = new Set([0x20, 0x09, 0x0a, 0x0d]);

/** Throws a VectorFileError for pickles, which a name or a format may have hidden. */
export function refusePickle(file: Uint8Array): void {
  // A header of 640 bytes makes a safetensors file begin as a pickle of protocol 2 does.
  const isPickle =
    file[0] === PICKLE && (file[1] ?? 255) <= MAX_PICKLE_PROTOCOL && !isSafetensors(file);
  // PyTorch's files: a zip with a pickle inside since 1.6, a tar or bare pickles before.
  const isTar = starts(file.subarray(TAR_MAGIC_OFFSET), Buffer.from("ustar"));
  const isTorchZip = starts(file, ZIP) && zipNames(file).some((name) => name.endsWith(".pkl"));
  if (isPickle || isTar || isTorchZip) {
    throw new VectorFileError(`a PyTorch or pickle file: ${ADVICE}`);
  }
}

/** Throws a VectorFileError for a format that is none of the known. */
export function detectFormat(file: Uint8Array): FileFormat {
  if (starts(file, Buffer.from("GGUF"))) return "gguf";
  if (starts(file, Buffer.from("\x93NUMPY", "latin1"))) return "npy";
  if (starts(file, ZIP)) return "npz";
  if (isSafetensors(file)) return "safetensors";
  const first = file.find((byte) => !WHITE_SPACE.has(byte));
  if (first === OPEN_BRACE) return isSvec(file) ? "svec" : "json";
  throw new VectorFileError(
    `the first bytes are those of no format that can be read (safetensors, GGUF, .svec, .npy, .npz, JSON). If it comes from PyTorch: ${ADVICE}`,
  );
}

/** Eight bytes of length, far below 4 GiB, then JSON. */
function isSafetensors(file: Uint8Array): boolean {
  return file[8] === OPEN_BRACE && file.subarray(4, 8).every((byte) => byte === 0);
}

function starts(file: Uint8Array, magic: Uint8Array): boolean {
  return Buffer.from(magic).equals(file.subarray(0, magic.length));
}
