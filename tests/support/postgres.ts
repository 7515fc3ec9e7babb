/** A real PostgreSQL server of its own in a temporary folder, for tests. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chownSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Client } from "pg";
import { freePort } from "./free-port.js";

const VERSIONS = "/usr/lib/postgresql";

export class PostgresServer {
  private child: ChildProcess | null = null;

  private constructor(
    private readonly folder: string,
    private readonly user: { uid?: number; gid?: number },
    readonly port: number,
  ) {}

  static async start(): Promise<PostgresServer> {
    const folder = mkdtempSync(path.join(tmpdir(), "postgres-"));
    const user = serverUser();
    if (user.uid !== undefined && user.gid !== undefined) chownSync(folder, user.uid, user.gid);
    const data = path.join(folder, "data");
    execFileSync(
      binary("initdb"),
      ["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
      { ...user, stdio: "pipe" },
    );
    const server = new PostgresServer(folder, user, await freePort());
    await server.resume();
    return server;
  }

  /** A database of this name, made when it is not there. */
  async database(name: string): Promise<string> {
    const client = new Client({ connectionString: this.url("postgres") });
    await client.connect();
    try {
      const { rowCount } = await client.query("SELECT 1 FROM pg_database WHERE datname = $1", [
        name,
      ]);
      if (rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
    } finally {
      await client.end();
    }
    return this.url(name);
  }

  url(database: string): string {
    return `postgres://postgres@127.0.0.1:${this.port}/${database}`;
  }

  /** Starts the server again on the same data and port; resolves when it answers. */
  async resume(): Promise<void> {
    const settings = ["fsync=off", "unix_socket_directories=", "listen_addresses=127.0.0.1"];
    this.child = spawn(
      binary("postgres"),
      [
        ...["-D", path.join(this.folder, "data"), "-p", String(this.port)],
        ...settings.flatMap((setting) => ["-c", setting]),
      ],
      { ...this.user, stdio: "ignore" },
    );
    for (;;) {
      const client = new Client({ connectionString: this.url("postgres") });
      try {
        await client.connect();
        await client.end();
        return;
      } catch (error) {
        if (this.child.exitCode !== null) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** SIGINT ends connections in order, SIGQUIT as a crash does. */
  async stop(signal: "SIGINT" | "SIGQUIT" = "SIGINT"): Promise<void> {
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await exited;
  }

  async dispose(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** PostgreSQL refuses to run as root; Debian's package makes a user for it. */
function serverUser(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const id = (flag: string) =>
    Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }).trim());
  return { uid: id("-u"), gid: id("-g") };
}

function binary(name: string): string {
  const newest = readdirSync(VERSIONS)
    .sort((a, b) => Number(a) - Number(b))
    .at(-1);
  return path.join(VERSIONS, newest ?? "", "bin", name);
}
