/**
 * The bytes that every token stands for in text: what the engine looks for a text in. Joined, the
 * bytes of the tokens of a text are its UTF-8; a character may be spread over several tokens.
 */
import { bytesOfPiece, isBytePiece } from "./decoder-kind.js";
import type { Tokenizer } from "./tokenizer.js";

/** Token t is bytes [tokenOffsets[t], tokenOffsets[t + 1]). */
export interface TokenBytes {
  tokenBytes: Uint8Array;
  /** [vocabSize + 1], ascending. */
  tokenOffsets: Uint32Array;
}

/** Special tokens stand for their own text; ids without a piece for nothing. */
export function tokenBytesOf(tokenizer: Tokenizer): TokenBytes {
  const parts: Uint8Array[] = [];
  const tokenOffsets = new Uint32Array(tokenizer.vocabSize + 1);
  let size = 0;
  for (let id = 0; id < tokenizer.vocabSize; id += 1) {
    const part = bytesOfToken(tokenizer, id);
    parts.push(part);
    size += part.length;
    tokenOffsets[id + 1] = size;
  }
  return { tokenBytes: new Uint8Array(Buffer.concat(parts, size)), tokenOffsets };
}

/** The joined bytes of `ids`. */
export function bytesOfTokens(table: TokenBytes, ids: Iterable<number>): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const id of ids) {
    parts.push(table.tokenBytes.subarray(table.tokenOffsets[id], table.tokenOffsets[id + 1]));
  }
  return new Uint8Array(Buffer.concat(parts));
}

/**
 * Position of the token that completes `text` for the first time in `ids`; -1: it does not appear.
 * The engine finds the same one.
 */
export function findText(table: TokenBytes, ids: ArrayLike<number>, text: Uint8Array): number {
  const bytes = Buffer.from(bytesOfTokens(table, Array.from(ids)));
  const start = text.length === 0 ? -1 : bytes.indexOf(text);
  if (start < 0) return -1;
  let end = 0;
  for (let position = 0; position < ids.length; position += 1) {
    const id = ids[position] ?? 0;
    end += (table.tokenOffsets[id + 1] ?? 0) - (table.tokenOffsets[id] ?? 0);
    if (end >= start + text.length) return position;
  }
  return -1;
}

/** A piece in front of others: a decoder treats the first one in a way of its own. */
const ANCHOR = "a";

function bytesOfToken(tokenizer: Tokenizer, id: number): Uint8Array {
  const piece = tokenizer.piece(id);
  if (piece === "") return new Uint8Array();
  const { isByteLevel, hasByteFallback } = tokenizer.decoderKind;
  if (isByteLevel) return bytesOfPiece(piece);
  if (hasByteFallback && isBytePiece(piece)) {
    return Uint8Array.of(Number.parseInt(piece.slice(3, 5), 16));
  }
  const before = tokenizer.joinPieces([ANCHOR]);
  return Buffer.from(tokenizer.joinPieces([ANCHOR, piece]).slice(before.length), "utf8");
}
