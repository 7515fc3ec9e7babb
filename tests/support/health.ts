/** grpc.health.v1.Health/Check. */
import { Client, credentials } from "@grpc/grpc-js";
import type { MethodDefinition } from "@grpc/proto-loader";
import { healthDefinition } from "../../src/client/contract.js";

/** The status by name. */
export function checkHealth(address: string, service: string): Promise<string> {
  const health = healthDefinition["grpc.health.v1.Health"] as unknown as Record<
    string,
    MethodDefinition<object, object, object, { status: string }>
  >;
  const { Check: check } = health;
  if (!check) throw new Error("the health service has no Check");
  const client = new Client(address, credentials.createInsecure());
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      check.path,
      check.requestSerialize,
      check.responseDeserialize,
      { service },
      (error, response) => {
        client.close();
        if (error || !response) reject(error ?? new Error("no response"));
        else resolve(response.status);
      },
    );
  });
}
