/**
 * The one error taxonomy. Every error that a client sees is a `ServiceError`; rpc/ maps it to a gRPC
 * status with google.rpc details. Anything else becomes INTERNAL with a correlation id.
 */

/** google.rpc.Code. */
export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const;
export type CodeNumber = (typeof Code)[keyof typeof Code];

export interface FieldViolation {
  /** Path in the request: `steering[0].coefficient`. */
  field: string;
  description: string;
}

/** `reason` is a stable word for programs (google.rpc.ErrorInfo). */
export abstract class ServiceError extends Error {
  abstract readonly code: CodeNumber;
  constructor(
    message: string,
    readonly reason: string,
  ) {
    super(message);
    this.name = new.target.name;
  }
}

export class InvalidArgumentError extends ServiceError {
  readonly code = Code.INVALID_ARGUMENT;
  constructor(readonly violations: FieldViolation[]) {
    super(
      violations.map(({ field, description }) => `${field}: ${description}`).join("; "),
      "INVALID_ARGUMENT",
    );
  }
}

/** One bad field. */
export function invalid(field: string, description: string): InvalidArgumentError {
  return new InvalidArgumentError([{ field, description }]);
}

export class NotFoundError extends ServiceError {
  readonly code = Code.NOT_FOUND;
  constructor(
    /** "vector", "adapter", "probe". */
    readonly resourceType: string,
    readonly resourceName: string,
  ) {
    super(`${resourceType} "${resourceName}" does not exist`, "NOT_FOUND");
  }
}

export class AlreadyExistsError extends ServiceError {
  readonly code = Code.ALREADY_EXISTS;
  constructor(
    readonly resourceType: string,
    readonly resourceName: string,
  ) {
    super(`${resourceType} "${resourceName}" exists with other content`, "ALREADY_EXISTS");
  }
}

export class FailedPreconditionError extends ServiceError {
  readonly code = Code.FAILED_PRECONDITION;
}

/** Part of the contract, but not served by this version. */
export class UnimplementedError extends ServiceError {
  readonly code = Code.UNIMPLEMENTED;
  constructor(feature: string) {
    super(`${feature} is not served by this version`, "NOT_SERVED");
  }
}

/** Without a stack: thousands a second are refused in an overload, and a stack is a tenth of the cost. */
export class ResourceExhaustedError extends ServiceError {
  readonly code = Code.RESOURCE_EXHAUSTED;
  /** When to try again, milliseconds; null: trying again does not help. */
  readonly retryDelayMs: number | null;

  constructor(message: string, reason: string, retryDelayMs: number | null) {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(message, reason);
    Error.stackTraceLimit = stackTraceLimit;
    this.retryDelayMs = retryDelayMs;
  }
}

export class DeadlineExceededError extends ServiceError {
  readonly code = Code.DEADLINE_EXCEEDED;
  constructor(message = "the deadline passed") {
    super(message, "DEADLINE_EXCEEDED");
  }
}

export class CancelledError extends ServiceError {
  readonly code = Code.CANCELLED;
  constructor(message = "the request was cancelled") {
    super(message, "CANCELLED");
  }
}

export class UnavailableError extends ServiceError {
  readonly code = Code.UNAVAILABLE;
  constructor(
    message: string,
    reason: string,
    readonly retryDelayMs = 1000,
  ) {
    super(message, reason);
  }
}

/** No bearer token, or none that is known. */
export class UnauthenticatedError extends ServiceError {
  readonly code = Code.UNAUTHENTICATED;
  constructor() {
    super('a known bearer token is needed: metadata "authorization: Bearer …"', "UNAUTHENTICATED");
  }
}

/** The token lacks a role. */
export class PermissionDeniedError extends ServiceError {
  readonly code = Code.PERMISSION_DENIED;
  /** `role`: null when no role is enough. */
  constructor(method: string, role: string | null) {
    const needs = role === null ? "is served to nobody" : `needs the role ${role}`;
    super(`${method} ${needs}`, "ROLE_MISSING");
  }
}

/** Something unforeseen in the engine; the text is for the log, never for the client. */
export class EngineFault extends ServiceError {
  readonly code = Code.INTERNAL;
  constructor(message: string) {
    super(message, "ENGINE_FAULT");
  }
}

/** A file or setting that keeps the server from starting: says what and where. */
export class StartupError extends Error {
  override readonly name = "StartupError";
}
