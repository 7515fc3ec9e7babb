/** The store that `--registry` names: a folder or a PostgreSQL database. */
import { DirectoryStore } from "./directory/directory-store.js";
import { isPostgresUrl, PostgresStore, placeOfUrl } from "./postgres/postgres-store.js";
import type { VectorStore } from "./store.js";

export interface StoreOptions {
  /** Between two looks for other replicas' writes, milliseconds. */
  pollIntervalMs: number;
  onWarning(text: string): void;
}

/** The registry for logs and messages: never with a password. */
export function placeOf(registry: string): string {
  return isPostgresUrl(registry) ? placeOfUrl(registry) : registry;
}

/** Throws a StartupError. */
export function openStore(registry: string, options: StoreOptions): Promise<VectorStore> {
  if (isPostgresUrl(registry)) return PostgresStore.open(registry, options);
  return DirectoryStore.open(registry, { onWarning: options.onWarning });
}
