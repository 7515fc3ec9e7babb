/**
 * The addon with a device that hangs or fails on command (tests/support/faulty-device): a plugin
 * library behind the seam that GPUs use, so that nothing of it is in the addon itself.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { ROOT } from "./live-server.js";
import { TemporaryFolder } from "./tiny-checkpoint.js";

const BUILD = path.join(ROOT, "out/addon");

export class FaultyDevice {
  private readonly folder = new TemporaryFolder();
  /** For the server's process; its option is `--device cuda`. */
  readonly env: Readonly<Record<string, string>>;

  constructor() {
    const addon = path.join(BUILD, "Release/llama_steer.node");
    if (!existsSync(path.join(BUILD, "CMakeCache.txt"))) {
      throw new Error(`${BUILD} is no build folder: npm run build:addon`);
    }
    const target = ["--target", "llama_steer_faulty_device"];
    const built = spawnSync("cmake", ["--build", BUILD, ...target], { encoding: "utf8" });
    if (built.status !== 0) throw new Error(`cmake: ${built.stdout}${built.stderr}`);
    copyFileSync(addon, this.folder.join("llama_steer.node"));
    const plugin = "libllama_steer_cuda.so";
    copyFileSync(path.join(BUILD, "faulty-device", plugin), this.folder.join(plugin));
    this.env = {
      LLAMA_STEER_ADDON_PATH: this.folder.join("llama_steer.node"),
      LLAMA_STEER_TEST_FAULT: this.folder.join("fault"),
    };
    this.set("");
  }

  /** From the next step on; "hang" lasts until something else is set. */
  set(fault: "" | "hang" | "fail"): void {
    writeFileSync(this.folder.join("fault"), fault);
  }

  remove(): void {
    this.folder.remove();
  }
}
