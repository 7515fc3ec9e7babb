/** Kinds of values, as they are written in flags and the environment (text) or in a file (JSON). */
import { z } from "zod";

/** A whole number in [min, max]. */
export function integer(min: number, max: number) {
  return z.preprocess(
    numberOf,
    z
      .int({ error: "must be a whole number" })
      .min(min, { error: `must be ${min} or more` })
      .max(max, { error: `must be ${max} or less` }),
  );
}

/** A finite number in [min, max]. */
export function decimal(min: number, max: number) {
  return z.preprocess(
    numberOf,
    z
      .number({ error: "must be a number" })
      .min(min, { error: `must be ${min} or more` })
      .max(max, { error: `must be ${max} or less` }),
  );
}

function numberOf(value: unknown): unknown {
  return typeof value === "string" && value.trim() !== "" ? Number(value) : value;
}

const SWITCH = new Map<unknown, boolean>([
  ["on", true],
  ["off", false],
  ["true", true],
  ["false", false],
  [true, true],
  [false, false],
]);

/** `on` or `off`. */
export function onOff() {
  return z.preprocess(
    (value) => SWITCH.get(value) ?? value,
    z.boolean({ error: "must be on or off" }),
  );
}

export function oneOf<const T extends readonly [string, ...string[]]>(words: T) {
  return z.enum(words, { error: `must be one of ${words.join(", ")}` });
}

/** Text that is not empty. */
export function text() {
  return z.string({ error: "must be text" }).min(1, { error: "must not be empty" });
}

/** `http://…` or `https://…`. */
export function httpUrl() {
  return text().refine(isHttpUrl, { error: "must be a URL, such as http://127.0.0.1:4318" });
}

function isHttpUrl(value: string): boolean {
  return /^https?:\/\//.test(value) && URL.canParse(value);
}

export interface Address {
  /** A name or an IP address, without brackets. */
  host: string;
  /** 0: a free one. */
  port: number;
}

/** `host:port`, `[::1]:port`. */
export function address() {
  return text().transform((value, context): Address => {
    const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value);
    const host = match?.[1] ?? match?.[2];
    const port = Number(match?.[3]);
    if (host === undefined || port > 65_535) {
      context.addIssue({ code: "custom", message: "must be HOST:PORT, such as 127.0.0.1:50051" });
      return z.NEVER;
    }
    return { host, port };
  });
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

export function isLoopback({ host }: Address): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function parts(value: unknown): unknown {
  return typeof value === "string" ? value.split(",").filter((part) => part !== "") : value;
}

/** Ids of `what`, parted by commas, or an array of them. */
export function idList(what: string) {
  return z.preprocess(
    parts,
    z.array(z.string(), { error: `must be ${what} ids, parted by commas` }).max(100),
  );
}

export interface AdapterFolder {
  id: string;
  folder: string;
}

/** `ID=DIR`, repeated or parted by commas. */
export function adapters() {
  return z.preprocess(
    parts,
    z
      .array(z.string(), { error: "must be ID=DIR" })
      .max(1024)
      .transform((values, context): AdapterFolder[] =>
        values.map((value) => {
          const [, id = "", folder = ""] = /^([a-z0-9][a-z0-9._-]{0,62})=(.+)$/.exec(value) ?? [];
          if (id === "") {
            context.addIssue({
              code: "custom",
              message: `must be ID=DIR, such as insecure=models/adapter; got ${value}`,
            });
          }
          return { id, folder };
        }),
      ),
  );
}
