/** Configuration: layers, kinds, refusals. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ConfigError } from "../../../src/config/config-error.js";
import { helpText } from "../../../src/config/help.js";
import { environmentName, flagName, loadConfig, OPTION_KEYS } from "../../../src/config/load.js";
import { formatAddress, isLoopback } from "../../../src/config/values.js";

const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

function load(flags: string[], environment: NodeJS.ProcessEnv = {}) {
  const config = loadConfig(["--model", "m", ...flags], environment);
  if (!config) throw new Error("help was asked for");
  return config;
}

function fileWith(json: unknown): string {
  const file = path.join(folder, "config.json");
  writeFileSync(file, typeof json === "string" ? json : JSON.stringify(json));
  return file;
}

describe("layers", () => {
  it("flags win over the environment, the environment over the file, the file over defaults", () => {
    const file = fileWith({ max_logprobs: 1, max_labels: 1, threads: 1 });
    const environment = { LLAMA_STEER_MAX_LOGPROBS: "2", LLAMA_STEER_MAX_LABELS: "2" };
    const config = load(["--config", file, "--max-logprobs", "3"], environment);
    expect(config).toMatchObject({ maxLogprobs: 3, maxLabels: 2, threads: 1, maxCompletions: 16 });
  });

  it("the file may be named by the environment", () => {
    const file = fileWith({ threads: 5 });
    expect(load([], { LLAMA_STEER_CONFIG: file }).threads).toBe(5);
  });

  it("environment variables of others that begin alike are left alone", () => {
    expect(() =>
      load([], { LLAMA_STEER_PORT: "tcp://1.2.3.4:5", LLAMA_STEER_X: "y" }),
    ).not.toThrow();
  });

  it("every option has a flag, an environment name and a line in the help", () => {
    const help = helpText();
    for (const key of OPTION_KEYS) {
      expect(help).toContain(`--${flagName(key)}`);
      expect(environmentName(key)).toMatch(/^LLAMA_STEER_[A-Z0-9_]+$/);
    }
  });
});

describe("the standard variables of OpenTelemetry", () => {
  const OTEL = {
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318",
    OTEL_EXPORTER_OTLP_TIMEOUT: "2500",
    OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
    OTEL_TRACES_SAMPLER_ARG: "0.25",
  };

  it("stand for options of the server, in its units; without them nothing is traced", () => {
    expect(load([]).otlpEndpoint).toBeUndefined();
    expect(load([], OTEL)).toMatchObject({
      otlpEndpoint: "http://collector:4318",
      otlpTimeoutSeconds: 2.5,
      traceSampleRatio: 0.25,
    });
    expect(load([], { ...OTEL, OTEL_TRACES_SAMPLER: "always_off" }).traceSampleRatio).toBe(0);
  });

  it("give way to the server's own options", () => {
    const environment = { ...OTEL, LLAMA_STEER_TRACE_SAMPLE_RATIO: "0.5" };
    const config = load(["--otlp-endpoint", "https://other"], environment);
    expect(config).toMatchObject({ otlpEndpoint: "https://other", traceSampleRatio: 0.5 });
  });

  it.each([{ OTEL_SDK_DISABLED: "true" }, { OTEL_TRACES_EXPORTER: "none" }])(
    "%o: nothing is exported",
    (off) => {
      expect(load([], { ...OTEL, ...off }).otlpEndpoint).toBeUndefined();
    },
  );

  it.each([
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }, "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf"],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" }, "OTEL_EXPORTER_OTLP_ENDPOINT: must be a"],
    [{ OTEL_TRACES_SAMPLER_ARG: "half" }, "OTEL_TRACES_SAMPLER_ARG: must be a number"],
    [{ OTEL_EXPORTER_OTLP_TIMEOUT: "soon" }, "OTEL_EXPORTER_OTLP_TIMEOUT: must be a number"],
  ])("%o is refused by its name", (wrong, message) => {
    expect(() => load([], { ...OTEL, ...wrong })).toThrow(message);
  });
});

describe("adapters", () => {
  const expected = [
    { id: "a", folder: "models/a" },
    { id: "b.1", folder: "/x=y" },
  ];

  it("are flags that may be repeated", () => {
    expect(load(["--adapter", "a=models/a", "--adapter", "b.1=/x=y"]).adapter).toEqual(expected);
    expect(load([]).adapter).toEqual([]);
  });

  it("are parted by commas in the environment, and listed in the file", () => {
    const fromEnvironment = load([], { LLAMA_STEER_ADAPTER: "a=models/a,b.1=/x=y" });
    expect(fromEnvironment.adapter).toEqual(expected);
    const file = fileWith({ adapter: ["a=models/a", "b.1=/x=y"] });
    expect(load(["--config", file]).adapter).toEqual(expected);
  });
});

describe("defaults", () => {
  it("listen on loopback, capture there, and nowhere else", () => {
    const config = load([]);
    expect(formatAddress(config.listen)).toBe("127.0.0.1:50051");
    expect(formatAddress(config.http)).toBe("127.0.0.1:9464");
    expect(config).toMatchObject({ capture: true, dtype: "auto", kvDtype: "bf16", device: "auto" });
    const open = ["--listen", "0.0.0.0:1", "--insecure-listen"];
    expect(load(open).capture).toBe(false);
    expect(load([...open, "--capture", "on"]).capture).toBe(true);
  });
});

describe("addresses", () => {
  it.each([
    ["localhost:1", true],
    ["127.8.9.1:1", true],
    ["[::1]:1", true],
    ["0.0.0.0:1", false],
    ["[::]:1", false],
    ["128.0.0.1:1", false],
    ["127.evil.example:1", false],
  ])("%s: loopback is %s", (text, loopback) => {
    const { listen } = load(["--listen", text, "--insecure-listen"]);
    expect(isLoopback(listen)).toBe(loopback);
    expect(formatAddress(listen)).toBe(text);
  });
});

describe("refusals", () => {
  const refused: [name: string, flags: string[], text: string][] = [
    ["an unknown flag", ["--nope"], "--nope"],
    ["a number that is none", ["--threads", "x"], "--threads: must be a whole number"],
    ["a broken number", ["--threads", "1.5"], "--threads: must be a whole number"],
    ["a negative number", ["--max-logprobs=-1"], "--max-logprobs: must be 0 or more"],
    ["a number out of range", ["--max-running-sequences", "0"], "must be 1 or more"],
    ["an infinite number", ["--drain-timeout-seconds", "Infinity"], "--drain-timeout-seconds"],
    ["another word than on or off", ["--capture", "maybe"], "--capture: must be on or off"],
    ["an unknown type", ["--dtype", "fp4"], "--dtype: must be one of auto, bf16, int8, fp8"],
    ["an unknown device", ["--device", "tpu"], "--device"],
    ["an address without a port", ["--listen", "localhost"], "--listen: must be HOST:PORT"],
    ["a port that is none", ["--http", "localhost:70000"], "--http: must be HOST:PORT"],
    ["an empty folder name", ["--registry", ""], "--registry: must not be empty"],
    ["an adapter without a folder", ["--adapter", "a="], "--adapter: must be ID=DIR"],
    ["an adapter without an id", ["--adapter", "dir"], "--adapter: must be ID=DIR"],
    ["an adapter with a bad id", ["--adapter", "A/b=dir"], "--adapter: must be ID=DIR"],
    [
      "an adapter named twice",
      ["--adapter", "a=b", "--adapter", "c=d", "--adapter", "a=e"],
      '--adapter: "a" is named twice',
    ],
    [
      "room for all captures below that of one",
      ["--max-capture-buffer-bytes", "1000"],
      "--max-capture-buffer-bytes is less than",
    ],
    ["a certificate without its key", ["--tls-cert", "c"], "--tls-key"],
    ["a client CA without TLS", ["--tls-client-ca", "c"], "--tls-cert"],
    ["gRPC beyond loopback", ["--listen", "[::]:1"], "--insecure-listen"],
    ["HTTP beyond loopback", ["--http", "0.0.0.0:1"], "--insecure-listen"],
    ["a file that is not there", ["--config", "/nope.json"], "/nope.json"],
  ];
  it.each(refused)("%s", (_name, flags, text) => {
    expect(() => load(flags)).toThrow(ConfigError);
    expect(() => load(flags)).toThrow(text);
  });

  it("name the environment variable or the key of the file that is wrong", () => {
    expect(() => load([], { LLAMA_STEER_THREADS: "x" })).toThrow("LLAMA_STEER_THREADS: must be");
    const file = fileWith({ threads: "x" });
    expect(() => load(["--config", file])).toThrow(`${file}: threads: must be`);
  });

  it("want authentication beside TLS beyond loopback", () => {
    const open = ["--listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k"];
    expect(() => load(open)).toThrow(/--tokens-file or --tls-client-ca/);
    expect(load([...open, "--tokens-file", "t"]).tokensFile).toBe("t");
    expect(load([...open, "--tls-client-ca", "a"]).tlsClientCa).toBe("a");
  });

  it("take no unknown key, no other JSON and no broken JSON from a file", () => {
    expect(() => load(["--config", fileWith({ maxLogprobs: 1 })])).toThrow(
      'unknown key "maxLogprobs"',
    );
    expect(() => load(["--config", fileWith([1])])).toThrow("must hold a JSON object");
    expect(() => load(["--config", fileWith("{")])).toThrow(ConfigError);
  });

  it("name every wrong option at once", () => {
    const wrong = ["--threads", "x", "--max-labels", "y"];
    expect(() => load(wrong)).toThrow(/--threads.*--max-labels/);
  });
});
