/**
 * Ends this process by SIGKILL before a chosen step that changes files, or halfway through a write; or
 * before a statement to a database, or right after it was sent. Steps are numbered from `arm` on. Works
 * on any program that uses node:fs/promises or pg, unchanged, if it is loaded after `install`.
 */
import { writeSync } from "node:fs";
import promises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

let armed = null;
const names = [];

/** `killAt`: the step's number, null for none; `half`: not before that step but halfway through. */
export function arm(killAt, half = false) {
  names.length = 0;
  armed = { killAt, half };
}

/** What the steps since `arm` were. */
export const steps = () => [...names];

export const isWrite = (name) => name.startsWith("write");

/** A step that is no call of node:fs. */
export async function step(name, doHalf = async () => {}) {
  if (!armed) return;
  names.push(name);
  if (names.length - 1 !== armed.killAt) return;
  if (armed.half) await doHalf();
  process.kill(process.pid, "SIGKILL");
  // The signal ends the process before this returns.
  await new Promise(() => {});
}

const changes = (flags) => flags !== undefined && flags !== "r";

function wrap(target, name, stepOf, halfOf) {
  const original = target[name];
  target[name] = async function (...args) {
    const text = stepOf(this, ...args);
    if (text !== null) await step(text, halfOf && (() => halfOf.call(this, ...args)));
    return original.apply(this, args);
  };
}

const baseName = (file) =>
  String(file)
    .split("/")
    .at(-1)
    .replace(/[0-9a-f-]{36,}/g, "…");

/** Once, before anything opens a file. */
export async function install() {
  const probe = await promises.open(process.execPath, "r");
  const handles = Object.getPrototypeOf(probe);
  await probe.close();
  wrap(promises, "open", (_, file, flags) => (changes(flags) ? `open ${baseName(file)}` : null));
  wrap(promises, "rename", (_, from) => `rename ${baseName(from)}`);
  wrap(promises, "link", (_, _from, to) => `link ${baseName(to)}`);
  wrap(promises, "rm", (_, file) => `remove ${baseName(file)}`);
  wrap(promises, "mkdir", (_, folder) => `make ${baseName(folder)}`);
  wrap(
    promises,
    "writeFile",
    (_, file) => `write ${baseName(file)}`,
    (file, data) => promises.appendFile(file, data.slice(0, data.length >> 1)),
  );
  wrap(
    handles,
    "writeFile",
    () => "write",
    async function (bytes) {
      writeSync(this.fd, bytes, 0, bytes.length >> 1);
    },
  );
  wrap(handles, "truncate", () => "truncate");
  wrap(handles, "sync", () => "sync");
  syncBuiltinESMExports();
}

/** The statement's first words, without its schema. */
const statementName = (text) =>
  text.trim().replaceAll("llama_steer.", "").split(/\s+/).slice(0, 3).join(" ");

/** The same for statements of transactions; what listens and reads beside them is no step. */
export async function installStatements() {
  const { Client } = (await import("pg")).default;
  const { query } = Client.prototype;
  const inside = new WeakSet();
  Client.prototype.query = async function (text, ...rest) {
    if (text === "BEGIN") inside.add(this);
    const send = () => query.call(this, text, ...rest);
    if (typeof text !== "string" || !inside.has(this)) return send();
    // The bytes are with the kernel when the next turn of the event loop begins.
    await step(statementName(text), async () => {
      send();
      await new Promise((resolve) => setImmediate(resolve));
    });
    if (text === "COMMIT" || text === "ROLLBACK") inside.delete(this);
    return send();
  };
}
