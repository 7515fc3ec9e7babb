/**
 * Encodes google.rpc.Status, which the trailer `grpc-status-details-bin` carries.
 * Messages and numbers: https://github.com/googleapis/googleapis/blob/master/google/rpc
 */
import protobuf from "protobufjs/minimal.js";

export type StatusDetail =
  | { type: "BadRequest"; violations: { field: string; description: string }[] }
  | { type: "ResourceInfo"; resourceType: string; resourceName: string }
  | { type: "RetryInfo"; retryDelayMs: number }
  | { type: "ErrorInfo"; reason: string; correlationId: string | null };

const DOMAIN = "llamasteer";
const TYPE_URL = "type.googleapis.com/google.rpc.";

type Field = readonly [number: number, value: string | number | Uint8Array];

/** A message from its fields: text and bytes by length, numbers as varints. */
function message(fields: readonly Field[]): Uint8Array {
  const writer = protobuf.Writer.create();
  for (const [number, value] of fields) {
    if (typeof value === "string") writer.uint32((number << 3) | 2).string(value);
    else if (typeof value === "number") writer.uint32(number << 3).int32(value);
    else writer.uint32((number << 3) | 2).bytes(value);
  }
  return writer.finish();
}

export function encodeStatusDetails(
  code: number,
  text: string,
  details: readonly StatusDetail[],
): Buffer {
  const packed = details.map((detail): Field => {
    const any = message([
      [1, TYPE_URL + detail.type],
      [2, encodeDetail(detail)],
    ]);
    return [3, any];
  });
  return Buffer.from(message([[1, code], [2, text], ...packed]));
}

function encodeDetail(detail: StatusDetail): Uint8Array {
  switch (detail.type) {
    case "BadRequest":
      return message(
        detail.violations.map(({ field, description }): Field => {
          const violation = message([
            [1, field],
            [2, description],
          ]);
          return [1, violation];
        }),
      );
    case "ResourceInfo":
      return message([
        [1, detail.resourceType],
        [2, detail.resourceName],
      ]);
    case "RetryInfo":
      return message([[1, encodeDuration(detail.retryDelayMs)]]);
    case "ErrorInfo":
      return message([
        [1, detail.reason],
        [2, DOMAIN],
        ...(detail.correlationId === null
          ? []
          : [[3, encodeEntry("correlation_id", detail.correlationId)] as const]),
      ]);
  }
}

function encodeDuration(milliseconds: number): Uint8Array {
  const seconds = Math.floor(milliseconds / 1000);
  return message([
    [1, seconds],
    [2, Math.round((milliseconds - seconds * 1000) * 1e6)],
  ]);
}

/** One entry of a map<string, string>. */
function encodeEntry(key: string, value: string): Uint8Array {
  return message([
    [1, key],
    [2, value],
  ]);
}
