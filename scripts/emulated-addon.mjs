// Puts the addon and the CUDA backend over the emulator side by side, without sanitizers, for
// programs of Node that are to run on `--device cuda` where there is no GPU. Prints the addon's path,
// which goes to LLAMA_STEER_ADDON_PATH. Needs a built addon.
//   node scripts/emulated-addon.mjs
import { execFileSync } from "node:child_process";
import { cpSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const build = path.join(root, "out", "emulated-addon");
const run = (command, args) =>
  execFileSync(command, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] }).toString();

const toolkit = run(path.join(root, "scripts", "cuda-toolkit.sh"), []).trim();
try {
  run("cmake", [
    ...["-S", ".", "-B", build, "-G", "Ninja"],
    ...["-DLLAMA_STEER_ADDON=OFF", "-DLLAMA_STEER_CUDA=OFF", "-DLLAMA_STEER_CUDA_EMULATED=ON"],
    `-DLLAMA_STEER_CUDA_TOOLKIT=${toolkit}`,
  ]);
  run("cmake", ["--build", build, "--parallel", "2", "--target", "llama_steer_cuda_emulated"]);
} catch (error) {
  process.stderr.write(error.stdout ?? "");
  throw error;
}
const addon = path.join(build, "llama_steer.node");
cpSync(path.join(root, "out", "addon", "Release", "llama_steer.node"), addon);
console.log(addon);
