// Makes src/generated from proto/: TypeScript types for the messages that proto-loader yields.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const folder = "llamasteer/v1";
const files = readdirSync(path.join(root, "proto", folder))
  .filter((name) => name.endsWith(".proto"))
  .map((name) => path.join(folder, name));
const bin = path.join(
  path.dirname(createRequire(import.meta.url).resolve("@grpc/proto-loader/package.json")),
  "build/bin/proto-loader-gen-types.js",
);
const result = spawnSync(
  process.execPath,
  [
    bin,
    "--longs=String",
    "--enums=String",
    "--defaults",
    "--oneofs",
    "--grpcLib=@grpc/grpc-js",
    "--importFileExtension=.js",
    "--includeComments",
    `--includeDirs=${path.join(root, "proto")}`,
    `--outDir=${path.join(root, "src/generated")}`,
    ...files,
  ],
  { cwd: root, stdio: "inherit" },
);
process.exit(result.status ?? 1);
