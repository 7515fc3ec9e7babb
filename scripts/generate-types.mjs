// Makes src/generated from proto/: TypeScript types for the messages that proto-loader yields, and
// the descriptors that server reflection tells to clients.
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
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
if (result.status !== 0) process.exit(result.status ?? 1);

// proto-loader's own descriptors name no imports, which strict clients (buf curl) cannot resolve.
const descriptorSet = (folder) =>
  execFileSync(
    path.join(root, "node_modules/.bin/buf"),
    ["build", folder, "--as-file-descriptor-set", "--exclude-source-info", "-o", "-#format=binpb"],
    { cwd: root, maxBuffer: 64 * 1024 ** 2 },
  ).toString("base64");
const sets = [".", "node_modules/grpc-health-check/proto"].map(descriptorSet);
writeFileSync(
  path.join(root, "src/generated/descriptor-sets.ts"),
  `/** google.protobuf.FileDescriptorSet of the contract and of health, in base64. */
export const DESCRIPTOR_SETS: readonly string[] = ${JSON.stringify(sets, null, 2)};
`,
);
