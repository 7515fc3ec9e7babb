/** Results as Markdown: what was run, where and when stands above every table. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

function gitCommit() {
  try {
    const head = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
    const changed = execFileSync("git", ["status", "--porcelain", "--untracked-files=no"]);
    return changed.length > 0 ? `${head} with changes` : head;
  } catch {
    return "unknown";
  }
}

/** Lines about the machine and this run; taken when called, so that the load is that of the start. */
export function runFacts() {
  const cpus = os.cpus();
  const gib = (os.totalmem() / 2 ** 30).toFixed(0);
  const load = os.loadavg().map((value) => value.toFixed(2));
  const script = path.relative(process.cwd(), process.argv[1]);
  return [
    ["command", `\`node ${[script, ...process.argv.slice(2)].join(" ")}\``],
    ["date", `${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC`],
    ["commit", gitCommit()],
    ["machine", `${cpus[0]?.model.trim()}, ${cpus.length} cores, ${gib} GiB`],
    ["system", `${os.type()} ${os.release()}, Node ${process.version}`],
    ["load average at the start (1, 5, 15 min)", load.join(", ")],
  ];
}

export function table(header, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(header), line(header.map(() => "---")), ...rows.map(line)].join("\n");
}

export const factList = (facts) => facts.map(([name, value]) => `- ${name}: ${value}`).join("\n");

/** Writes `sections` below a title; prints them too. */
export function writeReport(file, title, sections) {
  const text = `${[`# ${title}`, ...sections].join("\n\n")}\n`;
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  console.log(`${text}\nwritten to ${file}`);
}
