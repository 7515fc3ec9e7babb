/** Alerts, dashboard and runbook: promtool's verdict, and that they speak of metrics that exist. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TestServer } from "../support/server.js";

const root = path.join(import.meta.dirname, "..", "..");
const read = (file: string) => readFileSync(path.join(root, file), "utf8");
const RULES = "deploy/prometheus/rules.yaml";
const DASHBOARD = "deploy/grafana/llama-steer.json";

const promtool = (...args: string[]) =>
  execFileSync("promtool", args, { cwd: root, encoding: "utf8", stdio: "pipe" });

describe("alerts", () => {
  it("are rules that Prometheus takes", () => {
    expect(promtool("check", "rules", RULES)).toContain("SUCCESS");
  });

  it("fire when they should, and not just below", () => {
    expect(promtool("test", "rules", "deploy/prometheus/rules_test.yaml")).toContain("SUCCESS");
  });

  it("are each tested, and each has its section in the runbook", () => {
    const names = [...read(RULES).matchAll(/- alert: (\w+)/g)].map((match) => match[1] ?? "");
    expect(names.length).toBeGreaterThan(0);
    const headings = [...read("docs/runbook.md").matchAll(/^## (\w+)$/gm)].map(([, name]) => name);
    expect([...headings].sort()).toEqual([...names].sort());
    const tests = read("deploy/prometheus/rules_test.yaml");
    for (const name of names) {
      expect(tests).toContain(`alertname: ${name}`);
      expect(read(RULES)).toContain(`docs/runbook.md#${name.toLowerCase()}`);
    }
  });
});

describe("metrics that are asked for", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await TestServer.start();
  });
  afterAll(() => server.stop());

  it.each([RULES, DASHBOARD, "deploy/helm/llama-steer/templates/autoscaling.yaml"])(
    "of %s are served",
    async (file) => {
      const { body } = await server.http("/metrics");
      const served = new Set([...body.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1] ?? ""));
      const asked = [...read(file).matchAll(/llamasteer_[a-z0-9_]+/g)].map(([name]) =>
        name.replace(/_bucket$/, ""),
      );
      expect(asked.length).toBeGreaterThan(0);
      for (const name of asked) expect(served).toContain(name);
    },
  );
});
