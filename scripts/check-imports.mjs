// Checks who imports whom, as ARCHITECTURE.md says. Prints every broken rule and exits 1.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const LEAVES = ["config", "errors", "observability"];

/** Room -> rooms it may import (itself is always allowed). */
const TYPESCRIPT_RULES = {
  config: ["errors"],
  errors: [],
  observability: ["errors", "config"],
  native: [...LEAVES],
  model: ["native", ...LEAVES],
  vectors: ["native", "model", ...LEAVES],
  probes: ["native", "model", "vectors", ...LEAVES],
  generation: ["native", "model", "vectors", "probes", ...LEAVES],
  rpc: ["generation", "vectors", "probes", "model", "native", "generated", ...LEAVES],
  app: ["rpc", "generation", "vectors", "probes", "model", "native", ...LEAVES],
  main: ["app", ...LEAVES],
  generated: [],
  client: ["generated"],
  study: ["client"],
  cli: ["study", "client"],
};

/** Not even loaded when traces are off. */
const TRACES = path.join("observability", "otlp-tracing.ts");

/** Room of addon/ -> path prefixes below addon/ that it may include. */
const NATIVE_RULES = {
  support: ["support/"],
  backend: ["backend/", "support/"],
  model: ["model/", "backend/backend.h", "support/"],
  engine: ["engine/", "model/", "backend/backend.h", "backend/loader.h", "support/"],
  binding: ["binding/", "engine/", "model/llama_config.h", "backend/backend.h", "support/"],
};
/** The CUDA plugin: tensors, tables and streams, nothing of requests or models. */
const CUDA_RULE = [
  "backend/backend.h",
  "backend/loader.h",
  "backend/cpu/cpu_weight.h", // weights are converted on the host as for the CPU
  "support/",
];
/** State in, plan out: tested without a device, a model, a clock or a thread. */
const PURE_ENGINE_FILES = /^(scheduler|demand|shadow|text_matcher|kv_blocks|prefix_cache)\.(h|cc)$/;
const PURE_FORBIDDEN =
  /^(thread|mutex|condition_variable|atomic|chrono|model\/.*|backend\/loader\.h)$/;

const problems = [];
const complain = (file, line, text) =>
  problems.push(`${path.relative(root, file)}:${line}: ${text}`);

function* filesBelow(folder, extensions) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(full, extensions);
    else if (extensions.some((extension) => entry.name.endsWith(extension))) yield full;
  }
}

function* matches(file, pattern) {
  const lines = readFileSync(file, "utf8").split("\n");
  for (const [index, line] of lines.entries()) {
    for (const match of line.matchAll(pattern)) yield { line: index + 1, match };
  }
}

function checkTypeScript() {
  const source = path.join(root, "src");
  const roomOf = (file) => path.relative(source, file).split(path.sep)[0].replace(/\.ts$/, "");
  for (const file of filesBelow(source, [".ts"])) {
    const room = roomOf(file);
    const allowed = TYPESCRIPT_RULES[room];
    if (room === "generated") continue;
    if (!allowed) {
      complain(file, 1, `room "${room}" is not in the rules of scripts/check-imports.mjs`);
      continue;
    }
    for (const { line, match } of matches(file, /(?:from|import\()\s*"(\.[^"]+)"/g)) {
      const target = path.resolve(path.dirname(file), match[1]);
      const targetRoom = roomOf(target).replace(/\.js$/, "");
      const isServe = path.relative(source, file) === path.join("cli", "serve.ts");
      if (targetRoom === room || allowed.includes(targetRoom)) continue;
      if (isServe && targetRoom === "main") continue;
      complain(file, line, `${room} may not import ${targetRoom}`);
    }
    for (const { line } of matches(file, /(?:from|import\()\s*"@opentelemetry\//g)) {
      if (path.relative(source, file) === TRACES) continue;
      complain(file, line, `only ${TRACES} imports OpenTelemetry`);
    }
    for (const { line } of matches(file, /from\s*"[^"]*otlp-tracing/g)) {
      complain(file, line, "otlp-tracing is loaded by import() only, when traces are on");
    }
    const isLoader = path.relative(source, file) === path.join("native", "load.ts");
    if (isLoader) continue;
    for (const { line } of matches(file, /\.node["'`]/g)) {
      complain(file, line, "only native/load.ts opens a .node file");
    }
  }
}

function checkNative() {
  const addon = path.join(root, "addon");
  for (const file of filesBelow(addon, [".h", ".cc"])) {
    const room = path.relative(addon, file).split(path.sep)[0];
    const pure = room === "engine" && PURE_ENGINE_FILES.test(path.basename(file));
    for (const { line, match } of matches(file, /^#include ([<"])([^>"]+)[>"]/g)) {
      const [, quote, name] = match;
      if (pure && PURE_FORBIDDEN.test(name)) complain(file, line, `pure, may not include ${name}`);
      if (/^(napi|node_api|uv)\b/.test(name) && room !== "binding") {
        complain(file, line, `only binding/ may include ${name}`);
      }
      if (/^(cuda|cublas)/.test(name)) complain(file, line, `the addon includes no ${name}`);
      const ours = quote === '"' && /^(support|backend|model|engine|binding)\//.test(name);
      if (ours && !NATIVE_RULES[room].some((prefix) => name.startsWith(prefix))) {
        complain(file, line, `${room} may not include ${name}`);
      }
    }
  }
}

function checkCuda() {
  for (const file of filesBelow(path.join(root, "cuda"), [".h", ".cc", ".cu"])) {
    for (const { line, match } of matches(file, /^#include "([^"]+)"/g)) {
      const name = match[1];
      const outside = /^(support|backend|model|engine|binding)\//.test(name);
      if (outside && !CUDA_RULE.some((prefix) => name.startsWith(prefix))) {
        complain(file, line, `cuda may not include ${name}`);
      }
      const room = path.relative(path.join(root, "cuda"), file).split(path.sep)[0];
      if (name.startsWith("emulator/") && room !== "emulator" && !file.endsWith("device.h")) {
        complain(file, line, "only device/device.h knows the emulator");
      }
    }
  }
}

checkTypeScript();
checkNative();
checkCuda();
for (const problem of problems) console.error(problem);
console.log(
  problems.length === 0 ? "import rules hold" : `${problems.length} broken import rule(s)`,
);
process.exit(problems.length === 0 ? 0 : 1);
