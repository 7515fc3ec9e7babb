/** The command line against a live service on the shipped checkpoint, and a folder for its files. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "vitest";
import { type Finished, type LiveServer, MAIN, run, startLiveServer } from "./live-server.js";

export class CliTest {
  private constructor(
    readonly server: LiveServer,
    readonly folder: string,
  ) {}

  static async start(...serverOptions: string[]): Promise<CliTest> {
    const folder = mkdtempSync(path.join(tmpdir(), "llama-steer-cli-"));
    return new CliTest(await startLiveServer(...serverOptions), folder);
  }

  async stop(): Promise<void> {
    await this.server.stop();
    rmSync(this.folder, { recursive: true });
  }

  run(args: readonly string[], input?: string): Promise<Finished> {
    return run(process.execPath, [MAIN, ...args], {
      env: { LLAMA_STEER_SERVER: this.server.grpc },
      ...(input !== undefined && { input }),
    });
  }

  /** Standard output of a command that must succeed. */
  async ok(args: readonly string[], input?: string): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, input);
    expect(code, stderr).toBe(0);
    return stdout;
  }

  /** The one JSON object that a command with --json prints. */
  async json(args: readonly string[]) {
    return JSON.parse(await this.ok([...args, "--json"]));
  }

  path(name: string): string {
    return path.join(this.folder, name);
  }

  /** Writes a file; returns its path. */
  file(name: string, content: string): string {
    writeFileSync(this.path(name), content);
    return this.path(name);
  }
}
