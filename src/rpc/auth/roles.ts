/** Who may call what. A method that does not stand here is refused, whoever calls. */

export const ROLES = ["infer", "capture", "vectors:read", "vectors:write", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** "open": without a token; "any": with any token. */
export type Requirement = Role | "open" | "any";

const REQUIREMENTS: ReadonlyMap<string, Requirement> = new Map<string, Requirement>([
  ["llamasteer.v1.InferenceService/Generate", "infer"],
  ["llamasteer.v1.InferenceService/GenerateStream", "infer"],
  ["llamasteer.v1.InferenceService/Score", "infer"],
  ["llamasteer.v1.InferenceService/CaptureActivations", "capture"],
  ["llamasteer.v1.VectorService/CreateVector", "vectors:write"],
  ["llamasteer.v1.VectorService/ImportVector", "vectors:write"],
  ["llamasteer.v1.VectorService/ExportVector", "vectors:read"],
  ["llamasteer.v1.VectorService/DeriveVector", "vectors:write"],
  ["llamasteer.v1.VectorService/GetVector", "vectors:read"],
  ["llamasteer.v1.VectorService/ListVectors", "vectors:read"],
  ["llamasteer.v1.VectorService/DeleteVector", "vectors:write"],
  ["llamasteer.v1.ProbeService/FitProbe", "vectors:write"],
  ["llamasteer.v1.ProbeService/CalibrateProbe", "vectors:write"],
  ["llamasteer.v1.ProbeService/ScoreProbe", "infer"],
  ["llamasteer.v1.ProbeService/GetProbe", "vectors:read"],
  ["llamasteer.v1.ProbeService/ListProbes", "vectors:read"],
  ["llamasteer.v1.ProbeService/DeleteProbe", "vectors:write"],
  ["llamasteer.v1.ModelService/GetModel", "any"],
  ["llamasteer.v1.ModelService/Tokenize", "any"],
  ["llamasteer.v1.ModelService/Detokenize", "any"],
  ["llamasteer.v1.ModelService/RenderChat", "any"],
  ["llamasteer.v1.ModelService/LoadAdapter", "admin"],
  ["llamasteer.v1.ModelService/UnloadAdapter", "admin"],
  ["grpc.health.v1.Health/Check", "open"],
  ["grpc.health.v1.Health/Watch", "open"],
  ["grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "any"],
  ["grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "any"],
]);

/** What a log line may repeat of a request. */
const ID = /^[a-z0-9][a-z0-9._-]{0,62}(@sha256:[0-9a-f]{1,64})?$/;

/** Null: nobody may. `method`: "package.Service/Method". */
export function requirementOf(method: string): Requirement | null {
  return REQUIREMENTS.get(method) ?? null;
}

/** What a request asks for beyond its method; null: nothing. */
export function requirementOfMessage(method: string, message: unknown): Role | null {
  const captures = method === "llamasteer.v1.InferenceService/GenerateStream";
  return captures && fieldOf(message, "capture") !== null ? "capture" : null;
}

/** Changes that last: the audit log has a line for each. */
export function isWrite(method: string): boolean {
  const requirement = requirementOf(method);
  return requirement === "vectors:write" || requirement === "admin";
}

/** The id that a write is about; null when the message names none. */
export function resourceOf(message: unknown): string | null {
  for (const name of ["vectorId", "probeId", "adapterId"]) {
    const id = fieldOf(message, name) ?? fieldOf(fieldOf(message, "header"), name);
    if (typeof id === "string" && id !== "") return ID.test(id) ? id : "(no id)";
  }
  return null;
}

function fieldOf(message: unknown, name: string): unknown {
  if (typeof message !== "object" || message === null) return null;
  return Object.entries(message).find(([key]) => key === name)?.[1] ?? null;
}
