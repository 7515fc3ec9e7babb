/**
 * Bearer tokens: a JSON file that holds their hashes, never the tokens.
 *
 *   {"tokens": [{"name": "ci", "sha256": "<64 hex digits>", "roles": ["infer"]}]}
 *
 * A token is 32 random bytes, so one round of sha256 is enough; see `llama-steer tokens create`.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { StartupError } from "../../errors.js";
import { ROLES, type Role } from "./roles.js";

export interface Caller {
  name: string;
  roles: ReadonlySet<Role>;
}

interface Entry extends Caller {
  sha256: Buffer;
}

const MAX_TOKENS = 10_000;

const tokensSchema = z.strictObject({
  tokens: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/),
        sha256: z.string().regex(/^[0-9a-f]{64}$/),
        roles: z.array(z.enum(ROLES)).min(1),
      }),
    )
    .max(MAX_TOKENS),
});
type TokensFile = z.output<typeof tokensSchema>;

function hashToken(token: string): Buffer {
  return createHash("sha256").update(token, "utf8").digest();
}

export class TokenTable {
  private constructor(private readonly entries: readonly Entry[]) {}

  /** Throws a StartupError that names `file`. */
  static parse(text: string, file: string): TokenTable {
    const { tokens } = parseTokensFile(text, file);
    const names = new Set(tokens.map(({ name }) => name));
    if (names.size < tokens.length) throw new StartupError(`${file}: a name appears twice`);
    return new TokenTable(
      tokens.map(({ name, sha256, roles }) => ({
        name,
        roles: new Set(roles),
        sha256: Buffer.from(sha256, "hex"),
      })),
    );
  }

  /** In the same time for every token: all entries are compared. */
  find(token: string): Caller | null {
    const hash = hashToken(token);
    let found: Caller | null = null;
    for (const entry of this.entries) {
      if (timingSafeEqual(entry.sha256, hash)) found = entry;
    }
    return found;
  }
}

/** Throws a StartupError that names `file`. */
function parseTokensFile(text: string, file: string): TokensFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // What JSON.parse says quotes the file.
    throw new StartupError(`${file}: is no JSON`);
  }
  const parsed = tokensSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const { path = [], message = "" } = parsed.error.issues[0] ?? {};
  throw new StartupError(`${file}: ${path.join(".")}: ${message}`);
}
