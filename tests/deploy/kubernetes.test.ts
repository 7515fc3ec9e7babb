/** What the chart renders, held to the schemas of Kubernetes, the Prometheus operator and KEDA. */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { ROOT } from "../support/live-server.js";

const chart = path.join(ROOT, "deploy/helm/llama-steer");
const tools = path.join(ROOT, "out/tools");
const inPlace = ["--set", "model.pvc=m", "--set", "security.insecureListen=true"];
const everything = [
  ...["monitoring.serviceMonitor", "monitoring.prometheusRule", "monitoring.dashboard"],
  "networkPolicy.enabled",
].flatMap((name) => ["--set", `${name}=true`]);

/** By name: the arguments that choose the values. */
const sets: [string, string[]][] = [
  ...readdirSync(path.join(chart, "ci")).map((name): [string, string[]] => [
    name,
    ["--values", path.join(chart, "ci", name)],
  ]),
  ["the least that is valid", inPlace],
  ["everything, with HPA", ["--values", path.join(chart, "ci/gpu-values.yaml"), ...everything]],
];

beforeAll(() => {
  const script = path.join(ROOT, "scripts/install-kubeconform.sh");
  expect(spawnSync(script, { stdio: "inherit" }).status).toBe(0);
}, 900_000);

function run(tool: string, args: readonly string[], input = "") {
  const { status, stdout, stderr, error } = spawnSync(path.join(tools, tool), args, {
    encoding: "utf8",
    input,
  });
  if (error) throw error;
  return { status, stdout, stderr };
}

function render(args: readonly string[]): string {
  const { status, stdout, stderr } = run("helm", [
    ...["template", "steer", chart, "--kube-version", "1.34.0", ...args],
  ]);
  expect(status, stderr).toBe(0);
  return stdout;
}

interface Verdict {
  resources?: { kind: string; status: string; msg: string }[];
  summary: { valid: number; invalid: number; errors: number; skipped: number };
}

function validate(yaml: string): Verdict {
  const location = `${tools}/kubernetes-schemas/{{.ResourceKind}}{{.KindSuffix}}.json`;
  const { stdout } = run(
    "kubeconform",
    ["-strict", "-summary", "-output", "json", "-schema-location", location, "-"],
    yaml,
  );
  return JSON.parse(stdout);
}

describe.each(sets)("with %s", (_name, args) => {
  it("is what the API servers take, to the last field", () => {
    const yaml = render(args);
    const kinds = [...yaml.matchAll(/^kind: (\w+)$/gm)].map(([, kind]) => kind);
    const { resources, summary } = validate(yaml);
    expect(resources ?? []).toEqual([]);
    expect(summary).toEqual({ valid: kinds.length, invalid: 0, errors: 0, skipped: 0 });
    expect(kinds).toContain("Deployment");
  });
});

describe("the schemas", () => {
  const hpa = ["--values", path.join(chart, "ci/gpu-values.yaml"), ...everything];
  const keda = ["--values", path.join(chart, "ci/production-values.yaml")];

  it.each<[string, string[], string, string]>([
    ["an unknown field of a container", hpa, "imagePullPolicy:", "imagePullPolice:"],
    ["a text where a number is due", hpa, "containerPort: 50051", "containerPort: grpc"],
    ["a kind in another version", hpa, "apiVersion: apps/v1", "apiVersion: apps/v9"],
    ["an unknown field of the autoscaler", hpa, "scaleDown:", "scaleDowns:"],
    ["an unknown field of a policy", hpa, "podSelector:", "podSelectors:"],
    ["an unknown field of a ServiceMonitor", hpa, "interval:", "intervals:"],
    ["an unknown field of a PrometheusRule", hpa, "expr:", "expression:"],
    ["an unknown field of a ScaledObject", keda, "cooldownPeriod:", "cooldown:"],
  ])("refuse %s", (_name, args, from, to) => {
    const good = render(args);
    expect(good).toContain(from);
    const { summary } = validate(good.replace(from, to));
    expect(summary.invalid + summary.errors).toBe(1);
  });
});
