/** The gRPC contract as the server uses it, loaded from the .proto files that ship with the package. */
import { fileURLToPath } from "node:url";
import {
  loadSync,
  type MethodDefinition,
  type Options,
  type ServiceDefinition,
} from "@grpc/proto-loader";
import { strictDeserializer } from "./strict-reader.js";

/** Messages as scripts/generate-types.mjs types them. */
const LOADER_OPTIONS: Options = {
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
  includeDirs: [fileURLToPath(new URL("../../proto", import.meta.url))],
};

const FILES = ["inference", "vector", "probe", "model"].map(
  (name) => `llamasteer/v1/${name}.proto`,
);
const PACKAGE = "llamasteer.v1";

/** Names of the services, as health and reflection know them. */
export const SERVICE_NAMES = [
  "InferenceService",
  "VectorService",
  "ProbeService",
  "ModelService",
].map((name) => `${PACKAGE}.${name}`);

export interface Contract {
  /** Service definition by full name. */
  services: ReadonlyMap<string, ServiceDefinition>;
  /** "package.Service/Method" of each. */
  methods: string[];
}

export function loadContract(): Contract {
  const definitions = loadSync(FILES, LOADER_OPTIONS);
  const services = new Map<string, ServiceDefinition>();
  const methods: string[] = [];
  for (const name of SERVICE_NAMES) {
    const service = strictService(definitions[name] as ServiceDefinition);
    services.set(name, service);
    methods.push(...Object.values(service).map((method) => methodName(method.path)));
  }
  return { services, methods };
}

/** "/package.Service/Method" without the first slash. */
export function methodName(path: string): string {
  return path.slice(1);
}

function strictService(service: ServiceDefinition): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(service).map(([name, method]: [string, MethodDefinition<object, object>]) => [
      name,
      { ...method, requestDeserialize: strictDeserializer(method.requestDeserialize) },
    ]),
  );
}
