/** Logs say nothing that is not on the list. */
import { Writable } from "node:stream";
import { expect, it } from "vitest";
import { createLogger } from "../../../src/observability/logger.js";

async function logged(fields: object, level: "info" | "warn" = "info"): Promise<object[]> {
  const lines: object[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const logger = await createLogger(level, destination);
  logger.info(fields, "said");
  return lines;
}

it("calls are written with their listed fields only", async () => {
  const call = {
    method: "m",
    code: "OK",
    reason: null,
    durationSeconds: 1,
    prompt: "secret",
    request: { prompt: "secret" },
  };
  const [line] = await logged({ call });
  expect(line).toMatchObject({
    level: "info",
    msg: "said",
    call: { method: "m", code: "OK", durationSeconds: 1 },
  });
  expect(JSON.stringify(line)).not.toContain("secret");
});

it("errors are written with type, message and stack", async () => {
  const error = Object.assign(new TypeError("broke"), { request: "secret" });
  const [line] = await logged({ err: error });
  expect(line).toMatchObject({ err: { type: "TypeError", message: "broke" } });
  expect(JSON.stringify(line)).not.toContain("secret");
});

it("lines below the level are not written", async () => {
  expect(await logged({}, "warn")).toEqual([]);
});
