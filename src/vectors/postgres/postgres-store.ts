/**
 * Vectors in PostgreSQL, shared by all replicas of a service. Tables: migrations.ts. Writes are
 * transactions that take their turn at one locked row; reads ask for what is newer than a revision.
 */
import { type ClientConfig, Pool, type PoolClient } from "pg";
import { NotFoundError, ServiceError, StartupError, UnavailableError } from "../../errors.js";
import { reasonOf } from "../../model/json.js";
import { digestOf } from "../digest.js";
import { entrySchema, putEntry, recordOf } from "../entry.js";
import { decodeVector, encodeVector } from "../formats/safetensors.js";
import {
  decidePut,
  type NewVector,
  newRecord,
  type StoreChange,
  type VectorStore,
} from "../store.js";
import type { RecordKind, VectorRecord } from "../vector.js";
import { CHANNEL, Listener } from "./listener.js";
import { migrate } from "./migrations.js";

export interface PostgresOptions {
  /** Between two looks for other replicas' writes when no notification comes, milliseconds. */
  pollIntervalMs: number;
  /** Told when the database is lost, when it is back, and why a write failed. */
  onWarning(text: string): void;
  now(): Date;
}

const CONNECT_TIMEOUT_MS = 5000;
const STATEMENT_TIMEOUT_MS = 15_000;
const MAX_CONNECTIONS = 4;
/** Records of one query; their contents are in memory at the same time. */
const PAGE_RECORDS = 64;
const RETRY_DELAY_MS = 2000;

interface NameRow {
  revision: string;
  kind: RecordKind;
  id: string;
  entry: string;
  /** Null for a tombstone. */
  content: Buffer | null;
}

export function isPostgresUrl(registry: string): boolean {
  return /^postgres(ql)?:\/\//.test(registry);
}

export class PostgresStore implements VectorStore {
  readonly isShared = true;
  private readonly listeners = new Set<(revision: bigint) => void>();
  private readonly listener: Listener;
  private lastRevision = 0n;
  private closed = false;

  private constructor(
    private readonly pool: Pool,
    connection: ClientConfig,
    private readonly options: PostgresOptions,
  ) {
    this.listener = Listener.start({
      connection,
      pollIntervalMs: options.pollIntervalMs,
      onHint: () => this.hint(),
      onState: (connected, reason) =>
        options.onWarning(
          connected
            ? "connected to the registry's database"
            : `lost the registry's database: ${reason}`,
        ),
    });
  }

  /** Throws a StartupError, without the password, when the database is out of reach or unusable. */
  static async open(url: string, options: Partial<PostgresOptions> = {}): Promise<PostgresStore> {
    const complete: PostgresOptions = {
      pollIntervalMs: 5000,
      onWarning: () => {},
      now: () => new Date(),
      ...options,
    };
    const connection: ClientConfig = {
      connectionString: url,
      application_name: "llama-steer",
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      query_timeout: STATEMENT_TIMEOUT_MS,
      keepAlive: true,
    };
    const pool = new Pool({ ...connection, max: MAX_CONNECTIONS });
    // A connection that breaks, idle or in use, would end the process; queries fail by themselves.
    pool.on("error", () => {});
    pool.on("connect", (client) => client.on("error", () => {}));
    try {
      const client = await pool.connect();
      try {
        await migrate(client);
      } finally {
        client.release();
      }
    } catch (error) {
      await pool.end().catch(() => {});
      throw new StartupError(
        `the registry ${placeOfUrl(url)} cannot be opened: ${reasonOf(error)}`,
      );
    }
    return new PostgresStore(pool, connection, complete);
  }

  async put(vector: NewVector): Promise<VectorRecord> {
    const digest = digestOf(vector.content);
    return this.write(async (client, next) => {
      const existing = await entryOf(client, vector.kind, vector.id);
      if (decidePut(vector, digest, existing) === "keep" && existing !== null) {
        return recordOf(existing, vector.content);
      }
      const written = newRecord(vector, digest, await next(), this.options.now());
      await client.query(
        "INSERT INTO llama_steer.blobs (digest, content) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        [digest, encodeVector(vector.content, { digest })],
      );
      const entry = JSON.stringify(putEntry(written, vector.meanResidualNorms));
      await client.query(
        `INSERT INTO llama_steer.names (kind, id, revision, digest, entry) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (kind, id) DO UPDATE
         SET revision = excluded.revision, digest = excluded.digest, entry = excluded.entry`,
        [written.kind, written.id, written.revision.toString(), digest, entry],
      );
      return written;
    });
  }

  async remove(id: string, digest: string, kind: RecordKind = "vector"): Promise<bigint> {
    return this.write(async (client, next) => {
      const existing = await entryOf(client, kind, id);
      if (existing?.digest !== digest) throw new NotFoundError(kind, id);
      const revision = await next();
      const entry = JSON.stringify({ op: "remove", revision: Number(revision), kind, id });
      await client.query(
        `UPDATE llama_steer.names SET revision = $3, digest = NULL, entry = $4
         WHERE kind = $1 AND id = $2`,
        [kind, id, revision.toString(), entry],
      );
      await client.query(
        `DELETE FROM llama_steer.blobs WHERE digest = $1
         AND NOT EXISTS (SELECT 1 FROM llama_steer.names WHERE digest = $1)`,
        [digest],
      );
      return revision;
    });
  }

  async changesSince(revision: bigint): Promise<StoreChange[]> {
    const changes: StoreChange[] = [];
    let after = revision;
    for (;;) {
      const { rows } = await this.pool.query<NameRow>(
        `SELECT n.revision, n.kind, n.id, n.entry, b.content
         FROM llama_steer.names n LEFT JOIN llama_steer.blobs b USING (digest)
         WHERE n.revision > $1 ORDER BY n.revision LIMIT ${PAGE_RECORDS}`,
        [after.toString()],
      );
      changes.push(...rows.map(changeOf));
      after = changes.at(-1)?.revision ?? after;
      if (rows.length < PAGE_RECORDS) break;
    }
    if (after > this.lastRevision) this.lastRevision = after;
    return changes;
  }

  subscribe(listener: (revision: bigint) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.listener.close();
    await this.pool.end();
  }

  private hint(): void {
    for (const listener of this.listeners) listener(this.lastRevision);
  }

  /** A transaction that holds the head; `next` takes the next revision and tells the replicas. */
  private async write<T>(
    body: (client: PoolClient, next: () => Promise<bigint>) => Promise<T>,
  ): Promise<T> {
    let client: PoolClient | null = null;
    try {
      client = await this.pool.connect();
      await client.query("BEGIN");
      await client.query("SELECT revision FROM llama_steer.head FOR UPDATE");
      const result = await body(client, takeRevision(client));
      await client.query("COMMIT");
      client.release();
      this.hint();
      return result;
    } catch (error) {
      await abandon(client);
      if (error instanceof ServiceError) throw error;
      this.options.onWarning(`the registry cannot be written: ${reasonOf(error)}`);
      throw new UnavailableError(
        "the registry cannot be written",
        "REGISTRY_UNAVAILABLE",
        RETRY_DELAY_MS,
      );
    }
  }
}

function takeRevision(client: PoolClient): () => Promise<bigint> {
  return async () => {
    const { rows } = await client.query<{ revision: string }>(
      "UPDATE llama_steer.head SET revision = revision + 1 RETURNING revision",
    );
    const revision = rows[0]?.revision;
    if (revision === undefined) throw new Error("llama_steer.head has no row");
    await client.query("SELECT pg_notify($1, $2)", [CHANNEL, revision]);
    return BigInt(revision);
  };
}

/** A connection that cannot roll back is not used again. */
async function abandon(client: PoolClient | null): Promise<void> {
  if (client === null) return;
  try {
    await client.query("ROLLBACK");
    client.release();
  } catch {
    client.release(true);
  }
}

async function entryOf(client: PoolClient, kind: RecordKind, id: string) {
  const { rows } = await client.query<{ entry: string }>(
    "SELECT entry FROM llama_steer.names WHERE kind = $1 AND id = $2 AND digest IS NOT NULL",
    [kind, id],
  );
  if (rows[0] === undefined) return null;
  const entry = entrySchema.parse(JSON.parse(rows[0].entry));
  return entry.op === "put" ? entry : null;
}

/** Throws when the row does not hold what it says; nothing is served that is not proven whole. */
function changeOf({ revision, kind, id, entry, content }: NameRow): StoreChange {
  const parsed = entrySchema.parse(JSON.parse(entry));
  if (parsed.op === "remove") return { revision: BigInt(revision), kind, id, record: null };
  if (content === null) throw new Error(`${kind} "${id}": its rows are missing`);
  const decoded = decodeVector(content).content;
  const digest = digestOf(decoded);
  if (digest !== parsed.digest) throw new Error(`${kind} "${id}": damaged: its rows are ${digest}`);
  return { revision: BigInt(revision), kind, id, record: recordOf(parsed, decoded) };
}

/** Host and database, without user and password. */
export function placeOfUrl(url: string): string {
  try {
    const { host, pathname } = new URL(url);
    return `postgres://${host}${pathname}`;
  } catch {
    return "postgres://…";
  }
}
