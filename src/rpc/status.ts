/** From the error taxonomy to a gRPC status with google.rpc details. The table: docs/errors.md. */
import { randomUUID } from "node:crypto";
import { Metadata, type StatusObject } from "@grpc/grpc-js";
import {
  AlreadyExistsError,
  Code,
  EngineFault,
  InvalidArgumentError,
  NotFoundError,
  ResourceExhaustedError,
  ServiceError,
  UnavailableError,
} from "../errors.js";
import { encodeStatusDetails, type StatusDetail } from "./status-details.js";

export interface RpcStatus extends StatusObject {
  /** Stable word for programs and logs. */
  reason: string;
  /** Set when the cause is told to the log only. */
  correlationId: string | null;
}

/** Trailers have room for a few KiB only. */
const MAX_MESSAGE_CHARACTERS = 1024;
const MAX_DESCRIPTION_CHARACTERS = 256;
const MAX_VIOLATIONS = 8;

export function statusOf(error: unknown): RpcStatus {
  if (!(error instanceof ServiceError) || error instanceof EngineFault) {
    const correlationId = randomUUID();
    const message = `internal error; correlation id ${correlationId}`;
    return build(Code.INTERNAL, message, "INTERNAL", [], null, correlationId);
  }
  return build(
    error.code,
    error.message,
    error.reason,
    detailsOf(error),
    retryDelayOf(error),
    null,
  );
}

function build(
  code: number,
  message: string,
  reason: string,
  details: StatusDetail[],
  retryDelayMs: number | null,
  correlationId: string | null,
): RpcStatus {
  const short = shorten(message, MAX_MESSAGE_CHARACTERS);
  const metadata = new Metadata();
  const all: StatusDetail[] = [{ type: "ErrorInfo", reason, correlationId }, ...details];
  metadata.set("grpc-status-details-bin", encodeStatusDetails(code, short, all));
  if (retryDelayMs !== null) metadata.set("grpc-retry-pushback-ms", String(retryDelayMs));
  return { code, details: short, metadata, reason, correlationId };
}

function detailsOf(error: ServiceError): StatusDetail[] {
  if (error instanceof InvalidArgumentError) {
    const violations = error.violations.slice(0, MAX_VIOLATIONS).map(({ field, description }) => ({
      field: shorten(field, MAX_DESCRIPTION_CHARACTERS),
      description: shorten(description, MAX_DESCRIPTION_CHARACTERS),
    }));
    return [{ type: "BadRequest", violations }];
  }
  if (error instanceof NotFoundError || error instanceof AlreadyExistsError) {
    const { resourceType, resourceName } = error;
    return [{ type: "ResourceInfo", resourceType, resourceName }];
  }
  const retryDelayMs = retryDelayOf(error);
  return retryDelayMs === null ? [] : [{ type: "RetryInfo", retryDelayMs }];
}

function retryDelayOf(error: ServiceError): number | null {
  const canRetry = error instanceof ResourceExhaustedError || error instanceof UnavailableError;
  return canRetry ? error.retryDelayMs : null;
}

/** Cuts between characters, never inside a surrogate pair. */
function shorten(text: string, maxCharacters: number): string {
  if (text.length <= maxCharacters) return text;
  const cut = text.slice(0, maxCharacters - 1).replace(/[\uD800-\uDBFF]$/, "");
  return `${cut}…`;
}
