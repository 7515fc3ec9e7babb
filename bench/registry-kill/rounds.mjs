/** One write, cut at one step by SIGKILL; what is opened then must be whole. */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { isWrite } from "./failpoints.mjs";
import { DirectoryStore } from "./store.mjs";
import { fill, putLater, stateOf, WRITES } from "./writes.mjs";

const CHILD = path.join(import.meta.dirname, "child.mjs");
/** More than any opening takes. */
const RECOVERY_STEPS = 8;

const temporaryFolder = () => mkdtempSync(path.join(os.tmpdir(), "registry-kill-"));

/** One write in a process of its own; see child.mjs. */
export function runChild(...args) {
  const child = spawn(process.execPath, [CHILD, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (data) => {
    text += data;
  });
  return new Promise((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal, text }));
  });
}

async function withStore(folder, body) {
  const store = await DirectoryStore.open(folder);
  try {
    return await body(store);
  } finally {
    await store.close();
  }
}

/** The steps of a write, its failpoints, and the states before and after it. */
export async function planOf(write) {
  const folder = temporaryFolder();
  const template = path.join(folder, "template");
  const isFirst = WRITES[write] === null;
  if (!isFirst) await withStore(template, fill);
  const written = path.join(folder, "written");
  if (!isFirst) cpSync(template, written, { recursive: true });
  const { code, text } = await runChild(written, write, "count");
  if (code !== 0) throw new Error(`${write}: the child ended with ${code}`);
  const steps = JSON.parse(text);
  return {
    write,
    steps,
    failpoints: steps.flatMap((name, at) => [
      { at, name, half: false },
      ...(isWrite(name) ? [{ at, name, half: true }] : []),
    ]),
    template: isFirst ? null : template,
    before: isFirst ? "[]" : await withStore(template, stateOf),
    after: await withStore(written, stateOf),
    seen: { before: 0, after: 0, cutAgain: 0 },
    dispose: () => rmSync(folder, { recursive: true }),
  };
}

/** Throws, and leaves the folder for a look, when anything is not as it must be. */
export async function runRound(plan, failpoint, random) {
  const parent = temporaryFolder();
  const folder = path.join(parent, "registry");
  const fail = (text) => {
    const where = `${plan.write}, ${failpoint.half ? "halfway through" : "before"} step ${failpoint.at}`;
    throw new Error(`${where} (${failpoint.name}): ${text}; see ${folder}`);
  };
  if (plan.template) cpSync(plan.template, folder, { recursive: true });
  const cut = await runChild(
    ...[folder, plan.write, String(failpoint.at)],
    ...(failpoint.half ? ["half"] : []),
  );
  if (cut.signal !== "SIGKILL") fail(`the child ended with ${cut.code}, not by SIGKILL`);

  // Half of the time the next opening is cut, too.
  if (random() < 0.5) {
    const at = Math.floor(random() * RECOVERY_STEPS);
    const again = await runChild(folder, "", String(at));
    if (again.signal === "SIGKILL") plan.seen.cutAgain += 1;
    else if (again.code !== 0) fail(`the opening after it ended with ${again.code}`);
  }

  const state = await withStore(folder, stateOf);
  if (state !== plan.before && state !== plan.after) fail(`between: ${state}`);
  if (failpoint.name === "acknowledge" && state !== plan.after)
    fail("an acknowledged write is lost");
  plan.seen[state === plan.after ? "after" : "before"] += 1;
  await takesWrites(folder, state, fail);
  rmSync(parent, { recursive: true });
}

/** A further write works and stays, and nothing lies about. */
async function takesWrites(folder, state, fail) {
  const written = await withStore(folder, async (store) => {
    await putLater(store);
    return stateOf(store);
  });
  const reopened = await withStore(folder, stateOf);
  if (reopened !== written) fail(`a later write gave ${written}, opened again ${reopened}`);
  if (JSON.parse(written).length !== JSON.parse(state).length + 1)
    fail(`a later write: ${written}`);
  const live = new Set(
    JSON.parse(written).flatMap(([, , , found]) => (found ? [found[0].slice(7)] : [])),
  );
  const names = readdirSync(path.join(folder, "blobs")).map((name) => name.split(".")[0]);
  if (names.length !== live.size || !names.every((name) => live.has(name))) {
    fail(`files that nothing names: ${names}`);
  }
  const others = readdirSync(folder).filter(
    (name) => name !== "blobs" && name !== "manifest.jsonl" && !isHalfALock(folder, name),
  );
  if (others.length > 0) fail(`files that nothing names: ${others}`);
}

/** Nobody can tell whose it is: a later start removes it, when it is a minute old. */
function isHalfALock(folder, name) {
  return name.startsWith("LOCK.") && !readFileSync(path.join(folder, name), "utf8").endsWith("\n");
}
