import { readFileSync } from "node:fs";

/** The instruction sets of this machine that the addon can be pinned to. */
export function availableIsas(): string[] {
  if (process.arch === "arm64") return ["neon"];
  const flags = readFileSync("/proc/cpuinfo", "utf8");
  const has = (...names: string[]) =>
    names.every((name) => new RegExp(`\\b${name}\\b`).test(flags));
  const isas = [];
  if (has("avx2", "fma", "bmi2", "f16c")) isas.push("avx2");
  if (has("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")) isas.push("avx512");
  return isas;
}
