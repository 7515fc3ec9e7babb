/**
 * Server reflection (v1 and v1alpha) over the descriptors that the compiler made. proto-loader's own
 * ones merge files and name no imports, which strict clients cannot resolve.
 */
import type { Server } from "@grpc/grpc-js";
import type { PackageDefinition } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import protobuf from "protobufjs/minimal.js";
import { DESCRIPTOR_SETS } from "../generated/descriptor-sets.js";

export function addReflection(server: Server): void {
  // Of a package definition, reflection reads the descriptors only.
  const definition = { all: { fileDescriptorProtos: DESCRIPTOR_SETS.flatMap(filesOf) } };
  new ReflectionService(definition as unknown as PackageDefinition).addToServer(server);
}

/** The files of a google.protobuf.FileDescriptorSet: its field 1, repeated. */
function filesOf(base64: string): Buffer[] {
  const reader = protobuf.Reader.create(Buffer.from(base64, "base64"));
  const files: Buffer[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag >>> 3 === 1) files.push(Buffer.from(reader.bytes()));
    else reader.skipType(tag & 7);
  }
  return files;
}
