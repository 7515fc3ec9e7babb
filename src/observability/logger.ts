/**
 * Logs: JSON lines, or readable ones on a terminal. Values are written by an allow-list, so that no
 * prompt, no generated text and no credential can slip into a line.
 */
import { type DestinationStream, type Logger, pino } from "pino";

export type { Logger } from "pino";

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "silent";

/** What may be said of a call. */
export interface CallRecord {
  method: string;
  /** gRPC status by name. */
  code: string;
  /** Stable word of the error; null: none. */
  reason: string | null;
  durationSeconds: number;
  correlationId: string | null;
  /** Name of the bearer token; null: none was asked for. */
  caller: string | null;
  /** Id that a write is about. */
  resource: string | null;
  /** Null: the call is not traced. */
  traceId: string | null;
}

const CALL_FIELDS = [
  "method",
  "code",
  "reason",
  "durationSeconds",
  "correlationId",
  "caller",
  "resource",
  "traceId",
] as const;

/** `destination` defaults to standard output. */
export async function createLogger(
  level: LogLevel,
  destination: DestinationStream | null = null,
): Promise<Logger> {
  const stream = destination ?? (await standardOutput());
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { call: serializeCall, err: serializeError },
    },
    stream,
  );
}

async function standardOutput(): Promise<DestinationStream> {
  if (!process.stdout.isTTY) return pino.destination({ fd: 1, sync: true });
  const { default: pretty } = await import("pino-pretty");
  return pretty({ sync: true, colorize: true, translateTime: "SYS:HH:MM:ss.l" });
}

function serializeCall(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null) return {};
  const fields = new Map(Object.entries(value));
  const kept = CALL_FIELDS.filter((name) => (fields.get(name) ?? null) !== null);
  return Object.fromEntries(kept.map((name) => [name, fields.get(name)]));
}

function serializeError(value: unknown): Record<string, unknown> {
  if (!(value instanceof Error)) return { message: String(value) };
  return { type: value.name, message: value.message, stack: value.stack };
}
