/** The Dockerfile, read as a text: what a builder would find out late, or never. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const root = path.join(import.meta.dirname, "..", "..");
const ignored = readFileSync(path.join(root, ".dockerignore"), "utf8").split("\n").filter(Boolean);

interface Stage {
  name: string;
  base: string;
  instructions: { word: string; rest: string }[];
}

/** Instructions with their continuation lines joined and comments gone, by stage. */
function read(): { args: Map<string, string>; stages: Stage[] } {
  const text = readFileSync(path.join(root, "Dockerfile"), "utf8")
    .replace(/^\s*#.*\n/gm, "")
    .replace(/\\\n/g, " ");
  const args = new Map<string, string>();
  const stages: Stage[] = [];
  for (const line of text.split("\n").filter((each) => each.trim() !== "")) {
    const [, word = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    expect(word, line).not.toBe("");
    const stage = stages.at(-1);
    if (word === "FROM") {
      const [, base = "", name = ""] = /^(\S+)(?: AS (\S+))?$/.exec(rest) ?? [];
      stages.push({ name, base, instructions: [] });
    } else if (stage) stage.instructions.push({ word, rest: rest.replace(/\s+/g, " ").trim() });
    else args.set(rest.split("=")[0] ?? "", rest.split("=")[1] ?? "");
  }
  return { args, stages };
}

const { args, stages } = read();
const stage = (name: string) => {
  const found = stages.find((each) => each.name === name);
  if (!found) throw new Error(`no stage ${name}`);
  return found;
};

describe("the Dockerfile", () => {
  it("starts from images of build arguments, with a tag, or from stages before", () => {
    const known = new Set<string>();
    for (const { base, name } of stages) {
      const argument = /^\$\{(\w+)\}$/.exec(base)?.[1];
      if (argument === undefined) expect(known).toContain(base);
      else
        expect(args.get(argument)).toMatch(/^docker\.io\/library\/[a-z]+:(?!latest$)[a-z0-9.-]+$/);
      known.add(name);
    }
  });

  it("has the targets cpu and cuda, and builds cpu when none is named", () => {
    expect(stage("cuda").base).toBe("cpu");
    expect(stages.at(-1)).toEqual({ name: "", base: "cpu", instructions: [] });
  });

  it("copies what exists and is not ignored, or what a stage before has made", () => {
    const names = new Set(stages.map(({ name }) => name));
    for (const { instructions } of stages) {
      for (const { rest } of instructions.filter(({ word }) => word === "COPY")) {
        const [, from, files = ""] = /^(?:--from=(\S+) )?(.+)$/.exec(rest) ?? [];
        if (from !== undefined) {
          expect(names).toContain(from);
          continue;
        }
        for (const source of files.split(" ").slice(0, -1)) {
          expect(existsSync(path.join(root, source)), source).toBe(true);
          expect(ignored).not.toContain(source.split("/")[0]);
        }
      }
    }
  });

  it("installs without recommendations, and keeps no lists of packages", () => {
    for (const { instructions } of stages) {
      for (const { rest } of instructions.filter(({ word }) => word === "RUN")) {
        if (!rest.includes("apt-get install")) continue;
        expect(rest).toMatch(/^apt-get update && apt-get install --yes --no-install-recommends /);
        expect(rest).toMatch(/ && rm -rf \/var\/lib\/apt\/lists\/\*/);
      }
    }
    const words = stages.flatMap(({ instructions }) => instructions.map(({ word }) => word));
    expect(words).not.toContain("ADD");
  });

  it("runs as UID 10001 without a compiler, cuda with one file more", () => {
    const cpu = stage("cpu").instructions;
    const installs = cpu.filter(({ word }) => word === "RUN").map(({ rest }) => rest);
    expect(installs.join(" ")).not.toMatch(/g\+\+|gcc|clang|cmake|make|nvcc|build-essential/);
    expect(cpu.find(({ word }) => word === "USER")?.rest).toBe("10001:10001");
    const cuda = stage("cuda").instructions;
    expect(cuda.map(({ word }) => word)).toEqual(["COPY", "ENV"]);
    expect(cuda[0]?.rest).toBe(
      "--from=build-cuda /app/out/cuda/libllama_steer_cuda.so ./out/addon/Release/",
    );
    const target = cpu.find(({ rest }) => rest.includes("llama_steer.node"))?.rest;
    expect(target).toContain("./out/addon/Release/llama_steer.node");
  });
});
