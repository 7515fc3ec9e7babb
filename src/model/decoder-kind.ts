/** How the decoder of a tokenizer.json makes text of pieces: what streaming has to know. */
import { isObject } from "./json.js";

export interface DecoderKind {
  /** Every piece stands for bytes, in the alphabet of GPT-2; nothing else happens. */
  isByteLevel: boolean;
  /** Pieces like <0xE2> stand for bytes, and the run they stand in is decoded as a whole. */
  hasByteFallback: boolean;
}

export function decoderKindOf(tokenizerJson: unknown): DecoderKind {
  const decoder = isObject(tokenizerJson) ? tokenizerJson["decoder"] : null;
  const types = typesOf(decoder);
  return {
    isByteLevel: types.length === 1 && types[0] === "ByteLevel",
    hasByteFallback: types.includes("ByteFallback"),
  };
}

function typesOf(decoder: unknown): unknown[] {
  if (!isObject(decoder)) return [];
  const { type, decoders } = decoder;
  return type === "Sequence" && Array.isArray(decoders) ? decoders.flatMap(typesOf) : [type];
}

const BYTE_PIECE = /^<0x[0-9A-F]{2}>$/;

export function isBytePiece(piece: string): boolean {
  return BYTE_PIECE.test(piece);
}

/**
 * The bytes of a byte-level piece. The alphabet shows printable Latin-1 bytes as themselves and the
 * others, in order, as U+0100 and up. A piece with another character stands for its own UTF-8.
 */
export function bytesOfPiece(piece: string): Uint8Array {
  const bytes = new Uint8Array(piece.length);
  for (let i = 0; i < piece.length; i += 1) {
    const byte = BYTE_OF_UNIT.get(piece.charCodeAt(i));
    if (byte === undefined) return Buffer.from(piece, "utf8");
    bytes[i] = byte;
  }
  return bytes;
}

const BYTE_OF_UNIT = byteAlphabet();

function byteAlphabet(): Map<number, number> {
  const alphabet = new Map<number, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte += 1) {
    const isPrintable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
    if (isPrintable) alphabet.set(byte, byte);
    else alphabet.set(next++, byte);
  }
  return alphabet;
}
