/** TLS and mutual TLS by file paths. */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LlamaSteerClient, type TlsOptions } from "../../src/client/client.js";
import { TestServer } from "../support/server.js";
import { TemporaryFolder } from "../support/tiny-checkpoint.js";

const folder = new TemporaryFolder();
const file = (name: string) => folder.join(name);

/** A self-signed certificate is its own authority. */
function makeCertificate(name: string): void {
  execFileSync(
    "openssl",
    [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
      ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"],
      ...["-keyout", file(`${name}.key`), "-out", file(`${name}.crt`)],
    ],
    { stdio: "pipe" },
  );
}

let server: TestServer;
beforeAll(async () => {
  for (const name of ["server", "client", "stranger"]) makeCertificate(name);
  const tls = ["--tls-cert", file("server.crt"), "--tls-key", file("server.key")];
  server = await TestServer.start({ flags: [...tls, "--tls-client-ca", file("client.crt")] });
});
afterAll(async () => {
  await server.stop();
  folder.remove();
});

async function modelName(tls?: TlsOptions): Promise<string> {
  const address = server.app.addresses.grpc;
  const client = new LlamaSteerClient({ address, ...(tls ? { tls } : {}) });
  try {
    return (await client.model.get({ timeoutMs: 2000 })).name;
  } finally {
    client.close();
  }
}

describe("mutual TLS", () => {
  const trusted = { caFile: file("server.crt"), serverName: "localhost" };
  const pair = (name: string) => ({ certFile: file(`${name}.crt`), keyFile: file(`${name}.key`) });

  it("serves a client with a certificate of the CA", async () => {
    expect(await modelName({ ...trusted, ...pair("client") })).toBe("tiny");
  });

  it.each<[string, TlsOptions | undefined]>([
    ["without TLS", undefined],
    ["without a certificate", trusted],
    ["with a stranger's certificate", { ...trusted, ...pair("stranger") }],
    ["that does not trust the server", { serverName: "localhost", ...pair("client") }],
  ])("serves no client %s", async (_name, tls) => {
    await expect(modelName(tls)).rejects.toMatchObject({
      code: expect.stringMatching(/^(UNAVAILABLE|DEADLINE_EXCEEDED)$/),
    });
  });
});
