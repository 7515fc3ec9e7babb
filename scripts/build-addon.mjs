// Builds the addon with cmake-js into out/addon; the one path that `npm ci`, `npm run build:addon`
// and `npx node-gyp rebuild` share. Nothing is downloaded: the N-API headers are an npm package.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const runs = (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;
const TOOLS = [
  { commands: ["cmake"], package: "cmake" },
  { commands: ["ninja", "make"], package: "ninja-build" },
  { commands: [process.env.CXX ?? "c++", "g++", "clang++"], package: "g++" },
];
const missing = TOOLS.filter(({ commands }) => !commands.some(runs)).map((tool) => tool.package);
if (missing.length > 0) {
  console.error(`The addon cannot be built. Run: apt-get install ${missing.join(" ")} libhwy-dev`);
  process.exit(1);
}

const cmakeJs = createRequire(import.meta.url).resolve("cmake-js/bin/cmake-js");
const { status } = spawnSync(
  process.execPath,
  [cmakeJs, "compile", "--out", path.join("out", "addon"), "--target", "llama_steer"],
  {
    cwd: root,
    stdio: "inherit",
    env: { CMAKE_BUILD_PARALLEL_LEVEL: String(os.availableParallelism()), ...process.env },
  },
);
if (status !== 0) {
  console.error(
    "The addon was not built; the reason is above. It needs: apt-get install g++ cmake ninja-build libhwy-dev",
  );
}
process.exit(status ?? 1);
