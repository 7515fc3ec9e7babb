/** The one error that the client throws. */
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { decodeStatusDetails, type FieldViolation } from "./status-details.js";

/** Name of a google.rpc.Code: "INVALID_ARGUMENT". */
export type CodeName = keyof typeof status;

export class ClientError extends Error {
  override readonly name = "ClientError";
  /** Fields of the request that the server refused. */
  readonly violations: readonly FieldViolation[];
  /** When trying again may help, milliseconds; undefined: the server did not say. */
  readonly retryDelayMs: number | undefined;
  /** A stable word for programs: "NOT_FOUND", "QUEUE_FULL", … */
  readonly reason: string | undefined;
  /** What the error is about: { type: "vector", name: "sentiment" }. */
  readonly resource: { type: string; name: string } | undefined;

  constructor(
    readonly code: CodeName,
    message: string,
    trailers: Metadata = new Metadata(),
    options?: ErrorOptions,
  ) {
    super(message, options);
    const details = decodeStatusDetails(trailers);
    this.violations = details.violations;
    this.retryDelayMs = details.retryDelayMs;
    this.reason = details.reason;
    this.resource = details.resource;
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

/**
 * A stream that something between here and the server has cut: a proxy whose server went away, say.
 * The server's own INTERNAL always carries details.
 */
function isCut({ code, details, metadata }: ServiceError): boolean {
  return (
    code === status.INTERNAL &&
    details.startsWith("Received RST_STREAM with code") &&
    metadata.get("grpc-status-details-bin").length === 0
  );
}

/** Any failure of a call as a ClientError. */
export function toClientError(error: unknown): ClientError {
  if (error instanceof ClientError) return error;
  if (isServiceError(error)) {
    if (isCut(error)) {
      const text = `the connection broke before the answer was complete: ${error.details}`;
      return new ClientError("UNAVAILABLE", text, error.metadata, { cause: error });
    }
    const code = (status[error.code] ?? "UNKNOWN") as CodeName;
    return new ClientError(code, error.details || code, error.metadata, { cause: error });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new ClientError("UNKNOWN", message, undefined, { cause: error });
}
