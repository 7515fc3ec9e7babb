/** The gRPC contract as grpc-js objects, loaded from the .proto files that ship with the package. */
import { fileURLToPath } from "node:url";
import { loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync, type Options } from "@grpc/proto-loader";
import { protoPath as healthProto } from "grpc-health-check";
import type { ProtoGrpcType as InferenceTypes } from "../generated/inference.js";
import type { ProtoGrpcType as ModelTypes } from "../generated/model.js";
import type { ProtoGrpcType as ProbeTypes } from "../generated/probe.js";
import type { ProtoGrpcType as VectorTypes } from "../generated/vector.js";

/** Messages as scripts/generate-types.mjs types them. */
export const LOADER_OPTIONS: Options = {
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
  includeDirs: [fileURLToPath(new URL("../../proto", import.meta.url))],
};

const CONTRACT_FILES = ["inference", "vector", "probe", "model"].map(
  (name) => `llamasteer/v1/${name}.proto`,
);

const loaded = loadPackageDefinition(
  loadSync(CONTRACT_FILES, LOADER_OPTIONS),
) as unknown as InferenceTypes & VectorTypes & ProbeTypes & ModelTypes;

export const contract = loaded.llamasteer.v1;

/** Definition of `grpc.health.v1.Health`. */
export const healthDefinition = loadSync(healthProto, LOADER_OPTIONS);
