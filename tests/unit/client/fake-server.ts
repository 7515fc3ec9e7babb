/** A gRPC server that answers what a test tells it to. */
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type sendUnaryData,
  type status,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { HealthImplementation, type ServingStatus } from "grpc-health-check";
import { contract } from "../../../src/client/contract.js";

export interface FakeServer {
  address: string;
  setHealth(status: ServingStatus): void;
  stop(): void;
}

// The handlers of a test see requests as plain objects: the client's typing is what is tested.
export type Handlers = Record<string, Record<string, UntypedHandleCall>>;

export async function startFakeServer(handlers: Handlers): Promise<FakeServer> {
  const server = new Server();
  for (const [name, methods] of Object.entries(handlers)) {
    const { service } = contract[name as "VectorService"];
    server.addService(service, methods);
  }
  const health = new HealthImplementation({ "": "SERVING" });
  health.addToServer(server);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    address: `127.0.0.1:${port}`,
    setHealth: (value) => health.setStatus("", value),
    stop: () => server.forceShutdown(),
  };
}

/** An error as a server sends it; `details` is a google.rpc.Status in base64. */
export function failure(code: status, message: string, details?: string) {
  const metadata = new Metadata();
  if (details) metadata.set("grpc-status-details-bin", Buffer.from(details, "base64"));
  return { code, details: message, metadata };
}

export type Unary = (
  call: { request: Record<string, unknown>; metadata: Metadata },
  callback: sendUnaryData<object>,
) => void;
export type Streaming = (call: ServerWritableStream<Record<string, unknown>, object>) => void;
