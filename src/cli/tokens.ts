/** `llama-steer tokens create`: makes a bearer token and writes its hash where the server looks. */
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { Argument, type Command, Option } from "commander";
import { UsageError } from "./exit.js";

/** As the server knows them. */
export const ROLES = ["infer", "capture", "vectors:read", "vectors:write", "admin"] as const;

const NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/;
const TOKEN_BYTES = 32;

interface TokensFile {
  tokens: { name: string; sha256: string; roles: string[] }[];
}

export function addTokens(program: Command): void {
  const tokens = program.command("tokens").description("bearer tokens of a server");
  tokens
    .command("create")
    .description(
      "make a token, print it once, and add its hash to the file of `serve --tokens-file`; " +
        "a running server takes it by itself",
    )
    .addArgument(new Argument("<NAME>", "who holds it; stands in the audit log"))
    .addOption(
      new Option("--role <ROLE...>", "what it allows; may be repeated")
        .choices(ROLES)
        .makeOptionMandatory(),
    )
    .addOption(new Option("--file <FILE>", "made if it does not exist").default("tokens.json"))
    .action((name: string, { role, file }: { role: string[]; file: string }) => {
      process.stdout.write(`${createToken(name, role, file)}\n`);
    });
}

/** The file is replaced at once, so that a server never reads half of it. */
export function createToken(name: string, roles: readonly string[], file: string): string {
  if (!NAME.test(name)) throw new UsageError(`"${name}" does not match ${NAME.source}`);
  const { tokens } = readTokens(file);
  if (tokens.some((token) => token.name === name)) {
    throw new UsageError(`${file}: has a token "${name}" already; remove its entry first`);
  }
  const token = randomBytes(TOKEN_BYTES).toString("base64url");
  const sha256 = createHash("sha256").update(token, "utf8").digest("hex");
  const entries = [...tokens, { name, sha256, roles: [...new Set(roles)] }];
  const temporary = `${file}.tmp`;
  writeFileSync(temporary, `${JSON.stringify({ tokens: entries }, null, 2)}\n`, { mode: 0o600 });
  renameSync(temporary, file);
  return token;
}

function readTokens(file: string): TokensFile {
  if (!existsSync(file)) return { tokens: [] };
  try {
    const json: unknown = JSON.parse(readFileSync(file, "utf8"));
    if (isTokensFile(json)) return json;
  } catch {
    // Said below, without quoting the file.
  }
  throw new UsageError(`${file}: is no file of tokens`);
}

function isTokensFile(json: unknown): json is TokensFile {
  return (
    typeof json === "object" && json !== null && "tokens" in json && Array.isArray(json.tokens)
  );
}
