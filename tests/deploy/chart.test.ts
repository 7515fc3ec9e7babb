/** The chart, rendered by helm over several value sets. */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";

const root = path.join(import.meta.dirname, "..", "..");
const chart = path.join(root, "deploy/helm/llama-steer");
const sets = readdirSync(path.join(chart, "ci")).map((name) => path.join(chart, "ci", name));

function helm(...args: string[]): { ok: boolean; text: string } {
  const tool = path.join(root, "out/tools/helm");
  const { status, stdout, stderr, error } = spawnSync(tool, args, { encoding: "utf8" });
  if (error) throw error;
  return { ok: status === 0, text: status === 0 ? stdout : stderr };
}

// A helm built by `go install` does not know which Kubernetes it is of.
const KUBERNETES = ["--kube-version", "1.33.0"];
const render = (...args: string[]) => helm("template", "steer", chart, ...KUBERNETES, ...args);
const valid = ["--set", "model.pvc=m", "--set", "security.insecureListen=true"];

beforeAll(() => {
  const { status } = spawnSync(path.join(root, "scripts/install-helm.sh"), { stdio: "inherit" });
  expect(status).toBe(0);
}, 600_000);

describe.each(sets.map((file) => [path.basename(file), file]))("with %s", (_name, file) => {
  it("passes helm's lint", () => {
    expect(helm("lint", "--strict", ...KUBERNETES, "--values", file, chart)).toMatchObject({
      ok: true,
    });
  });

  it("runs unprivileged, with limits, probes over HTTP and time to drain", () => {
    const { ok, text } = render("--values", file);
    expect(text).not.toBe("");
    expect(ok).toBe(true);
    for (const line of [
      "runAsNonRoot: true",
      "runAsUser: 10001",
      "allowPrivilegeEscalation: false",
      "capabilities: { drop: [ALL] }",
      "seccompProfile: { type: RuntimeDefault }",
      "automountServiceAccountToken: false",
      "httpGet: { path: /startupz, port: http }",
      "httpGet: { path: /readyz, port: http }",
      "httpGet: { path: /livez, port: http }",
      "clusterIP: None",
      "kind: PodDisruptionBudget",
      "helm.sh/hook: test",
    ]) {
      expect(text).toContain(line);
    }
    const grace = Number(/terminationGracePeriodSeconds: (\d+)/.exec(text)?.[1]);
    const drain = Number(/\\"drain_timeout_seconds\\": (\d+)/.exec(text)?.[1]);
    expect(grace).toBeGreaterThan(drain);
  });
});

describe("values that contradict one another", () => {
  it.each<[string, string[], RegExp]>([
    ["no model", ["--set", "security.insecureListen=true"], /exactly one of model\.pvc/],
    ["two models", [...valid, "--set", "model.hostPath=/m"], /exactly one of model\.pvc/],
    ["no security", ["--set", "model.pvc=m"], /insecureListen/],
    [
      "TLS without authentication",
      ["--set", "model.pvc=m", "--set", "security.tls.existingSecret=s"],
      /tokens\.existingSecret or security\.tls\.clientCa/,
    ],
    ["replicas without PostgreSQL", [...valid, "--set", "replicaCount=2"], /postgres/],
    ["autoscaling without PostgreSQL", [...valid, "--set", "autoscaling.kind=hpa"], /postgres/],
    [
      "no time between drain and kill",
      [...valid, "--set", "drain.marginSeconds=0"],
      /marginSeconds/,
    ],
    ["an unknown value", [...valid, "--set", "replicas=2"], /replicas/],
    ["an option that the chart sets", [...valid, "--set", "config.listen=x"], /config/],
    ["a capital in an adapter's id", [...valid, "--set", "adapters.Bad=x"], /adapters|Bad/],
  ])("are refused: %s", (_name, args, text) => {
    const result = render(...args);
    expect(result.ok).toBe(false);
    expect(result.text).toMatch(text);
  });
});

describe("what is rendered", () => {
  it("lets one writer at a time have a registry in a folder", () => {
    expect(render(...valid).text).toContain("type: Recreate");
  });

  it("never prints the address of the database", () => {
    const postgres = ["--set", "registry.postgres.existingSecret=db"];
    const { text } = render(...valid, ...postgres);
    expect(text).toContain("name: LLAMA_STEER_REGISTRY");
    expect(text).not.toContain('\\"registry\\"');
    expect(text).toContain("type: RollingUpdate");
  });

  it("carries the alerts and the dashboard when asked", () => {
    const monitoring = ["prometheusRule", "dashboard", "serviceMonitor"];
    const { text } = render(
      ...valid,
      ...monitoring.flatMap((it) => ["--set", `monitoring.${it}=true`]),
    );
    expect(text).toContain("alert: LlamaSteerEngineDown");
    expect(text).toContain('grafana_dashboard: "1"');
    expect(text).toContain("kind: ServiceMonitor");
  });
});
