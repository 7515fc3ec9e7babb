import path from "node:path";
import { pathToFileURL } from "node:url";

/** LLAMA_STEER_DIST: compiled TypeScript of another place than dist/. */
const dist = path.resolve(process.env.LLAMA_STEER_DIST ?? "dist");
export const { DirectoryStore } = await import(
  pathToFileURL(path.join(dist, "vectors/directory/directory-store.js")).href
);
export const { PostgresStore } = await import(
  pathToFileURL(path.join(dist, "vectors/postgres/postgres-store.js")).href
);
