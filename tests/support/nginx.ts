/** nginx in front of replicas, by the file that is shipped, in a temporary folder. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { freePort } from "./free-port.js";
import { ROOT } from "./live-server.js";

const SITE = path.join(ROOT, "deploy/nginx/llama-steer.conf");
/** Outside the PATH of users. */
const SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin";

export class Nginx {
  private constructor(
    private readonly folder: string,
    private readonly child: ChildProcess,
    /** `HOST:PORT` for clients. */
    readonly address: string,
  ) {}

  /** Resolves when it takes connections; `replicas`: two addresses. */
  static async start(replicas: readonly [string, string]): Promise<Nginx> {
    const folder = mkdtempSync(path.join(tmpdir(), "nginx-"));
    const address = `127.0.0.1:${await freePort()}`;
    writeFileSync(path.join(folder, "nginx.conf"), configuration(folder, address, replicas));
    const child = spawn("nginx", ["-c", path.join(folder, "nginx.conf"), "-e", log(folder)], {
      env: { ...process.env, PATH: `${process.env["PATH"]}:${SYSTEM_FOLDERS}` },
      stdio: "ignore",
    });
    const failed = new Promise<never>((_, reject) => {
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`nginx ended with ${code}`)));
    });
    failed.catch(() => {});
    const nginx = new Nginx(folder, child, address);
    await Promise.race([failed, accepts(address)]);
    return nginx;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const exited = new Promise((resolve) => this.child.once("exit", resolve));
      this.child.kill("SIGTERM");
      await exited;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const log = (folder: string) => path.join(folder, "error.log");

function configuration(
  folder: string,
  address: string,
  replicas: readonly [string, string],
): string {
  const site = readFileSync(SITE, "utf8")
    .replace("replica-0:50051", replicas[0])
    .replace("replica-1:50051", replicas[1])
    .replace("listen 50051", `listen ${address}`);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${path.join(folder, name)};`,
  );
  return [
    // Its workers would not be let into the folder.
    process.getuid?.() === 0 ? "user root;" : "",
    `daemon off; pid ${path.join(folder, "pid")}; error_log ${log(folder)};`,
    "events { worker_connections 1024; }",
    `http { access_log off; ${paths.join(" ")} ${site} }`,
  ].join("\n");
}

async function accepts(address: string): Promise<void> {
  const [host = "", port] = address.split(":");
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(Number(port), host, () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
