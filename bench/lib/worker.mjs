/** Measured programs run in processes of their own and take one order at a time. */
import { fork, spawn } from "node:child_process";
import readline from "node:readline";

/** In a child: answers { op, args } with { result } or { error }. */
export function serveOrders(handlers) {
  process.on("message", async ({ op, args }) => {
    try {
      process.send({ result: await handlers[op](args) });
    } catch (error) {
      process.send({ error: error.stack ?? String(error) });
    }
  });
  process.on("disconnect", () => process.exit(0));
}

/** A forked Node program that calls serveOrders(). */
export class NodeWorker {
  constructor(file, args, env = {}) {
    this.name = `${file} ${args.join(" ")}`;
    this.child = fork(file, args, {
      env: { ...process.env, ...env },
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
  }

  order(op, args = {}) {
    return new Promise((resolve, reject) => {
      const onExit = (code) => reject(new Error(`${this.name} ended with code ${code}`));
      this.child.once("exit", onExit);
      this.child.once("message", ({ result, error }) => {
        this.child.off("exit", onExit);
        if (error === undefined) resolve(result);
        else reject(new Error(`${this.name}: ${error}`));
      });
      this.child.send({ op, args });
    });
  }

  close() {
    if (this.child.connected) this.child.disconnect();
  }
}

/** A program that answers each line of "op key=value ..." with one line of JSON. */
export class LineWorker {
  constructor(file, args) {
    this.name = `${file} ${args.join(" ")}`;
    this.child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.waiting = [];
    this.ended = new Promise((_, reject) => {
      this.child.once("error", reject);
      this.child.once("exit", (code) => reject(new Error(`${this.name} ended with code ${code}`)));
    });
    this.ended.catch(() => {});
    readline
      .createInterface({ input: this.child.stdout })
      .on("line", (line) => this.waiting.shift()?.(line));
  }

  /** The line that it prints once it is ready to take orders. */
  greeting() {
    return this.nextLine();
  }

  async nextLine() {
    const line = new Promise((resolve) => {
      this.waiting.push(resolve);
    });
    return JSON.parse(await Promise.race([line, this.ended]));
  }

  async order(op, args = {}) {
    const words = Object.entries(args).map(([key, value]) => `${key}=${value}`);
    this.child.stdin.write(`${[op, ...words].join(" ")}\n`);
    const result = await this.nextLine();
    if (result.error) throw new Error(`${this.name}: ${result.error}`);
    return result;
  }

  close() {
    this.child.stdin.end();
  }
}
