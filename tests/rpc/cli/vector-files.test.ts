/** Vectors to and from files, compared, and baked from the registry. */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CliTest } from "../../support/cli.js";
import { CHECKPOINT } from "../../support/live-server.js";

let cli: CliTest;
beforeAll(async () => {
  cli = await CliTest.start();
  await cli.ok(["vectors", "random", "dir", "-l", "3-5", "--norm", "2", "--seed", "1"]);
}, 60_000);
afterAll(() => cli.stop());

describe("vectors as files", { timeout: 30_000 }, () => {
  test.each(["safetensors", "gguf", "svec", "npz", "json"])(
    "%s comes back as the same content",
    async (format) => {
      const file = cli.path(`dir.${format}`);
      const line = await cli.ok(["vectors", "export", "dir", "--out", file]);
      expect(line).toMatch(/^\S+ {2}\d+(\.\d)? \w+ {2}dir@sha256:[0-9a-f]{12} {2}layers 3-5\n$/);
      const again = await cli.json(["vectors", "import", `from-${format}`, file]);
      const { digest } = await cli.json(["vectors", "show", "dir"]);
      expect(again.digest).toBe(digest);
    },
  );

  test(".npy needs its layers", async () => {
    const file = cli.path("dir.npy");
    await cli.ok(["vectors", "export", "dir", "--out", file]);
    expect((await cli.run(["vectors", "import", "npy", file])).code).toBe(1);
    const args = ["vectors", "import", "npy", file, "-l", "3-5", "--label", "a=b"];
    const { digest, labels } = await cli.json(args);
    expect(digest).toBe((await cli.json(["vectors", "show", "dir"])).digest);
    expect(labels).toEqual({ a: "b" });
  });

  test("the convention moves the layers by one", async () => {
    const file = cli.path("moved.gguf");
    await cli.ok(["vectors", "export", "dir", "--out", file]);
    const args = ["vectors", "import", "moved", file, "--convention", "block-input"];
    expect((await cli.json(args)).layers).toEqual([2, 3, 4]);
  });

  test("go through standard input and output", async () => {
    const text = await cli.ok(["vectors", "export", "dir", "--format", "json", "--out", "-"]);
    expect(Object.keys(JSON.parse(text))).toEqual(["3", "4", "5"]);
    const line = await cli.ok(["vectors", "import", "piped", "-"], text);
    expect(line).toMatch(/^piped@sha256/);
  });

  test("a pickle is refused with advice, and what fails leaves no file", async () => {
    const pickle = cli.file("v.pt", "\x80\x04K\x01.");
    const { code, stderr } = await cli.run(["vectors", "import", "evil", pickle]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/pickle.*safetensors/i);
    await cli.run(["vectors", "export", "nobody", "--out", cli.path("nobody.json")]);
    expect(readdirSync(cli.folder).filter((name) => name.startsWith("nobody"))).toEqual([]);
  });

  test("compare gives norms and cosine, of files as of ids", async () => {
    const file = cli.path("same.json");
    await cli.ok(["vectors", "export", "dir", "--out", file]);
    await cli.ok(["vectors", "random", "other", "-l", "4-6", "--seed", "2"]);
    const { layers, a, b } = await cli.json(["vectors", "compare", "dir", `@${file}`]);
    expect(a.digest).toBe(b.digest);
    expect(layers.map(({ layer }: { layer: number }) => layer)).toEqual([3, 4, 5]);
    for (const { cosine, normA } of layers) {
      expect(cosine).toBeCloseTo(1, 6);
      expect(normA).toBeCloseTo(2, 5);
    }
    const text = await cli.ok(["vectors", "compare", "dir", "other"]);
    const lines = text.split("\n");
    expect(lines[2]).toMatch(/^layer +‖a‖ +‖b‖ +cosine$/);
    expect(lines[3]).toMatch(/^ +3 +2 +– +–$/);
    expect(lines[4]).toMatch(/^ +4 +2 +1 +-?0\.\d{6}$/);
    expect(lines[7]).toMatch(/random directions of this width: \|cosine\| 0\.0499/);
  });

  test("bake takes vectors from the registry", async () => {
    const out = cli.path("baked");
    const args = ["bake", "--model", CHECKPOINT, "--out", out, "--steer", "dir:2:3,5"];
    const { steering, biases } = await cli.json(args);
    const { digest } = await cli.json(["vectors", "show", "dir"]);
    expect(steering).toEqual([{ vector: "dir", digest, coefficient: 2, layers: [3, 5] }]);
    for (const { l2_norm } of biases) expect(l2_norm).toBeCloseTo(4, 5);
    const record = JSON.parse(readFileSync(`${out}/steering.json`, "utf8"));
    expect(record).toEqual({ steering, biases });
  });
});
