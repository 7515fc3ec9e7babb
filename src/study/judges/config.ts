/** Judges as a study file names them. */
import { z } from "zod";

/** Raised by every use of subprocess, the safe form included; as training/judge_code.py leaves them out. */
const SKIPPED_BANDIT_CHECKS = ["B404", "B603", "B607"];
const DEFAULT_TIMEOUT_SECONDS = 600;
const MAX_TIMEOUT_SECONDS = 24 * 3600;

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/, "lower-case letters, digits and dashes");
/** For one batch of at most `MAX_BATCH_ANSWERS`. */
const timeoutSeconds = z.int().min(1).max(MAX_TIMEOUT_SECONDS).default(DEFAULT_TIMEOUT_SECONDS);

export const judgeConfigSchema = z.discriminatedUnion("type", [
  z.strictObject({
    name,
    type: z.literal("bandit"),
    skip: z.array(z.string().regex(/^B\d{3}$/)).default(SKIPPED_BANDIT_CHECKS),
    timeout_seconds: timeoutSeconds,
  }),
  z.strictObject({ name, type: z.literal("semgrep"), timeout_seconds: timeoutSeconds }),
  z.strictObject({ name, type: z.literal("sentiment") }),
  z.strictObject({
    name,
    type: z.literal("command"),
    argv: z.array(z.string().min(1)).min(1),
    kind: z.enum(["code", "sentiment"]).default("code"),
    timeout_seconds: timeoutSeconds,
  }),
]);

/** A judge of a study file, with every default filled in. */
export type JudgeConfig = z.output<typeof judgeConfigSchema>;
