/** What clients are told when a request is refused. */
import { expect } from "vitest";
import type { TestServer } from "./server.js";

export interface Refusal {
  code: string;
  /** Path of the field in the google.rpc.BadRequest. */
  field?: string;
  /** Part of the message. */
  text?: string;
  resource?: { type: string; name: string };
}

/** The call fails as promised, tells nothing of the machine, and the server keeps serving. */
export async function expectRefusalOf(
  server: TestServer,
  call: Promise<unknown>,
  refusal: Refusal,
): Promise<void> {
  const error = await call.then(
    () => {
      throw new Error("the request was served");
    },
    (reason) => reason,
  );
  expect(error.code, error.message).toBe(refusal.code);
  if (refusal.field !== undefined) {
    expect(error.violations.map((violation: { field: string }) => violation.field)).toContain(
      refusal.field,
    );
  }
  if (refusal.text !== undefined) expect(error.message).toContain(refusal.text);
  if (refusal.resource !== undefined) expect(error.resource).toEqual(refusal.resource);
  expect(error.reason).toBeTruthy();
  // Nothing of the machine may show.
  expect(error.message).not.toMatch(/node_modules|\.ts:|\.js:|\/tmp\/|0x[0-9a-f]{6}/);
  const answer = await server.client.generate({ prompt: "a", sampling: { maxNewTokens: 1 } });
  expect(answer.completions[0]?.tokenIds).toHaveLength(1);
}

export const invalid = (field: string, text?: string): Refusal => ({
  code: "INVALID_ARGUMENT",
  field,
  ...(text === undefined ? {} : { text }),
});
