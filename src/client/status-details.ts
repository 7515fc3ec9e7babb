/**
 * Decodes the google.rpc details of an error: the trailer `grpc-status-details-bin` holds a
 * google.rpc.Status, whose `details` are messages packed with the URL of their type.
 * Messages and numbers: https://github.com/googleapis/googleapis/blob/master/google/rpc
 */
import type { Metadata } from "@grpc/grpc-js";
import { fromJSON, type MessageTypeDefinition } from "@grpc/proto-loader";

export interface FieldViolation {
  /** Path in the request: `steering[0].coefficient`. */
  field: string;
  description: string;
}

export interface StatusDetails {
  /** google.rpc.BadRequest. */
  violations: FieldViolation[];
  /** google.rpc.RetryInfo, milliseconds. */
  retryDelayMs?: number;
  /** google.rpc.ErrorInfo: a stable word for programs. */
  reason?: string;
  /** google.rpc.ErrorInfo. */
  metadata: Record<string, string>;
  /** google.rpc.ResourceInfo. */
  resource?: { type: string; name: string };
}

const DETAILS_KEY = "grpc-status-details-bin";
const text = (id: number) => ({ type: "string", id });
const integer = (type: "int32" | "int64", id: number) => ({ type, id });

const messages = fromJSON(
  {
    nested: {
      llamasteer_client_rpc: {
        nested: {
          Any: { fields: { typeUrl: text(1), value: { type: "bytes", id: 2 } } },
          Status: {
            fields: {
              code: integer("int32", 1),
              message: text(2),
              details: { rule: "repeated", type: "Any", id: 3 },
            },
          },
          FieldViolation: { fields: { field: text(1), description: text(2) } },
          BadRequest: {
            fields: { fieldViolations: { rule: "repeated", type: "FieldViolation", id: 1 } },
          },
          Duration: { fields: { seconds: integer("int64", 1), nanos: integer("int32", 2) } },
          RetryInfo: { fields: { retryDelay: { type: "Duration", id: 1 } } },
          ErrorInfo: {
            fields: {
              reason: text(1),
              domain: text(2),
              metadata: { keyType: "string", type: "string", id: 3 },
            },
          },
          ResourceInfo: { fields: { resourceType: text(1), resourceName: text(2) } },
        },
      },
    },
  } as Parameters<typeof fromJSON>[0],
  { longs: Number, defaults: true },
);

function decode<T extends object>(name: string, bytes: Buffer): T {
  const type = messages[`llamasteer_client_rpc.${name}`] as MessageTypeDefinition<object, T>;
  return type.deserialize(bytes);
}

/** What the trailers say about an error; whatever cannot be decoded is left out. */
export function decodeStatusDetails(trailers: Metadata): StatusDetails {
  const details: StatusDetails = { violations: [], metadata: {} };
  const [bytes] = trailers.get(DETAILS_KEY);
  if (!Buffer.isBuffer(bytes)) return details;
  try {
    const status = decode<{ details: { typeUrl: string; value: Buffer }[] }>("Status", bytes);
    for (const { typeUrl, value } of status.details) addDetail(details, typeUrl, value);
  } catch {
    // A proxy may send anything here; the status code stands on its own.
  }
  return details;
}

function addDetail(details: StatusDetails, typeUrl: string, value: Buffer): void {
  switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
    case "google.rpc.BadRequest": {
      const badRequest = decode<{ fieldViolations: FieldViolation[] }>("BadRequest", value);
      for (const { field, description } of badRequest.fieldViolations) {
        details.violations.push({ field, description });
      }
      return;
    }
    case "google.rpc.RetryInfo": {
      const info = decode<{ retryDelay: { seconds: number; nanos: number } | null }>(
        "RetryInfo",
        value,
      );
      if (info.retryDelay) {
        details.retryDelayMs = info.retryDelay.seconds * 1000 + info.retryDelay.nanos / 1e6;
      }
      return;
    }
    case "google.rpc.ErrorInfo": {
      const info = decode<{ reason: string; metadata: Record<string, string> }>("ErrorInfo", value);
      details.reason = info.reason;
      details.metadata = info.metadata;
      return;
    }
    case "google.rpc.ResourceInfo": {
      const info = decode<{ resourceType: string; resourceName: string }>("ResourceInfo", value);
      details.resource = { type: info.resourceType, name: info.resourceName };
      return;
    }
  }
}
