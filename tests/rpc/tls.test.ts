/** TLS and mutual TLS by file paths. */
import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LlamaSteerClient, type TlsOptions } from "../../src/client/client.js";
import { TestServer, until } from "../support/server.js";
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

describe("certificates that are replaced", () => {
  const served = { certFile: file("rotating.crt"), keyFile: file("rotating.key") };
  const use = (name: string, part: "crt" | "key") =>
    copyFileSync(file(`${name}.${part}`), file(`rotating.${part}`));
  const reaches = (rotating: TestServer, trusted: string) => {
    const address = rotating.app.addresses.grpc;
    const tls = { caFile: file(`${trusted}.crt`), serverName: "localhost" };
    const client = new LlamaSteerClient({ address, tls });
    const answer = client.model.get({ timeoutMs: 2000 }).then(
      () => true,
      () => false,
    );
    return answer.finally(() => client.close());
  };

  it("serve new connections; half of a pair, or none, leaves the old one", async () => {
    for (const part of ["crt", "key"] as const) use("server", part);
    const rotating = await TestServer.start({
      flags: [
        ...["--tls-cert", served.certFile, "--tls-key", served.keyFile],
        ...["--security-reload-seconds", "0.05"],
      ],
    });
    try {
      expect(await reaches(rotating, "server")).toBe(true);
      use("stranger", "crt");
      await until(() => rotating.logLines.some((line) => line.includes("cannot be reloaded")));
      expect(await reaches(rotating, "server")).toBe(true);
      use("stranger", "key");
      await until(() => rotating.logLines.some((line) => line.includes("were reloaded")));
      expect(await reaches(rotating, "stranger")).toBe(true);
      expect(await reaches(rotating, "server")).toBe(false);
      const key = readFileSync(served.keyFile, "utf8").split("\n")[1] ?? "";
      expect(rotating.logLines.join("")).not.toContain(key);
    } finally {
      await rotating.stop();
    }
  });
});
