// Builds the addon with cmake-js into out/addon; the one path that `npm ci`, `npm run build:addon`
// and `npx node-gyp rebuild` share.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const cmakeJs = createRequire(import.meta.url).resolve("cmake-js/bin/cmake-js");
const result = spawnSync(
  process.execPath,
  [cmakeJs, "compile", "--out", path.join("out", "addon"), "--target", "llama_steer"],
  { cwd: root, stdio: "inherit" },
);
if (result.status !== 0) {
  console.error(
    "The addon was not built. It needs: apt-get install g++ cmake ninja-build libhwy-dev",
  );
}
process.exit(result.status ?? 1);
