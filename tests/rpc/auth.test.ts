/** Bearer tokens and roles: every rpc of the contract is guarded, and nothing else is let through. */
import { readFileSync, writeFileSync } from "node:fs";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ROLES as CLI_ROLES, createToken } from "../../src/cli/tokens.js";
import { LlamaSteerClient } from "../../src/client/client.js";
import { ROLES, type Role, requirementOf } from "../../src/rpc/auth/roles.js";
import { loadContract } from "../../src/rpc/contract.js";
import { collect, TestServer, until } from "../support/server.js";
import { TemporaryFolder } from "../support/tiny-checkpoint.js";

const folder = new TemporaryFolder();
const file = folder.join("tokens.json");
const nameOf = (role: Role) => role.replace(":", "-");
const tokenOf = new Map<Role, string>(
  ROLES.map((role) => [role, createToken(nameOf(role), [role], file)]),
);
const { methods } = loadContract();

let server: TestServer;
let wire: Client;
beforeAll(async () => {
  server = await TestServer.start({
    flags: ["--tokens-file", file, "--security-reload-seconds", "0.1"],
  });
  wire = new Client(server.app.addresses.grpc, credentials.createInsecure());
});
afterAll(async () => {
  wire.close();
  await server.stop();
  folder.remove();
});

/** Status of an empty request; OK stands for any answer of the handler. */
function statusOfCall(method: string, authorization: string[]): Promise<number> {
  const metadata = new Metadata();
  for (const value of authorization) metadata.add("authorization", value);
  return new Promise((resolve) => {
    const call = wire.makeServerStreamRequest(
      `/${method}`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.alloc(0),
      metadata,
      { deadline: Date.now() + 20_000 },
    );
    call.on("data", () => {});
    call.on("error", (error: ServiceError) => resolve(error.code));
    call.on("end", () => resolve(status.OK));
  });
}

const DENIED = [status.UNAUTHENTICATED, status.PERMISSION_DENIED];

describe.each(methods)("%s", (method) => {
  it("is not served without a token that is known", async () => {
    const known = tokenOf.get("admin") ?? "";
    for (const authorization of [
      [],
      ["Bearer "],
      ["Bearer wrong"],
      [known],
      [`Basic ${known}`],
      [`Bearer ${known}x`],
    ]) {
      expect(await statusOfCall(method, authorization)).toBe(status.UNAUTHENTICATED);
    }
  });

  it("is served to its role and to admin, and to no other", async () => {
    const requirement = requirementOf(method);
    expect(requirement).not.toBe(null);
    expect(requirement).not.toBe("open");
    for (const [role, token] of tokenOf) {
      const code = await statusOfCall(method, [`Bearer ${token}`]);
      if (role === "admin" || role === requirement || requirement === "any") {
        expect(DENIED).not.toContain(code);
      } else {
        expect(code).toBe(status.PERMISSION_DENIED);
      }
    }
  });
});

describe("beside the contract", () => {
  it("health is open, for probes have no token", async () => {
    expect(await statusOfCall("grpc.health.v1.Health/Check", [])).toBe(status.OK);
  });

  it("reflection is for those who have one", async () => {
    const method = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    expect(await statusOfCall(method, [])).toBe(status.UNAUTHENTICATED);
    expect(DENIED).not.toContain(await statusOfCall(method, [`Bearer ${tokenOf.get("infer")}`]));
  });

  it("a method that is unknown says nothing about itself", async () => {
    expect(await statusOfCall("llamasteer.v1.Other/Method", [])).not.toBe(status.OK);
  });

  it("the command line makes the roles that the server knows", () => {
    expect(CLI_ROLES).toEqual(ROLES);
  });
});

function clientOf(token: string): LlamaSteerClient {
  return new LlamaSteerClient({ address: server.app.addresses.grpc, token });
}

describe("a caller", () => {
  it("needs the role for capture to capture while generating", async () => {
    const request = {
      prompt: "ab",
      sampling: { maxNewTokens: 2 },
      capture: { sites: ["SITE_RESID_POST" as const] },
    };
    const infer = clientOf(tokenOf.get("infer") ?? "");
    await expect(collect(infer.generateStream(request))).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
    });
    expect(
      (await infer.generate({ prompt: "ab", sampling: { maxNewTokens: 2 } })).usage,
    ).toBeDefined();
    infer.close();
  });

  it("is named in the audit log with what was written, and no token ever is", async () => {
    const writer = clientOf(tokenOf.get("vectors:write") ?? "");
    const hiddenSize = (await writer.model.get()).architecture?.hiddenSize ?? 0;
    const rows = [{ layer: 0, data: Buffer.from(new Float32Array(hiddenSize).fill(1).buffer) }];
    await writer.vectors.create({ vectorId: "audited", rows });
    await expect(writer.vectors.delete("absent")).rejects.toMatchObject({ code: "NOT_FOUND" });
    writer.close();
    const audits = server.logLines
      .map((line) => JSON.parse(line))
      .filter(({ msg, call }) => msg === "audit" && call.caller === nameOf("vectors:write"))
      .filter(({ call }) => call.resource !== undefined);
    expect(audits.map(({ call }) => [call.method.split("/")[1], call.resource, call.code])).toEqual(
      [
        ["CreateVector", "audited", "OK"],
        ["DeleteVector", "absent", "NOT_FOUND"],
      ],
    );
    const reader = clientOf(tokenOf.get("vectors:read") ?? "");
    await expect(reader.vectors.delete("audited")).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
    });
    reader.close();
    const refused = server.logLines
      .map((line) => JSON.parse(line))
      .filter(({ msg, call }) => msg === "audit" && call.caller === nameOf("vectors:read"));
    expect(refused.at(-1)?.call.code).toBe("PERMISSION_DENIED");
    for (const token of tokenOf.values()) expect(server.logLines.join("")).not.toContain(token);
  });
});

describe("the file of tokens", () => {
  it("is taken again when it changes; a broken one changes nothing", async () => {
    const good = readFileSync(file, "utf8");
    const method = "llamasteer.v1.ModelService/GetModel";
    const late = createToken("late", ["infer"], file);
    await until(async () => (await statusOfCall(method, [`Bearer ${late}`])) === status.OK);

    writeFileSync(file, "{");
    await until(() => server.logLines.some((line) => line.includes("cannot be reloaded")));
    expect(await statusOfCall(method, [`Bearer ${late}`])).toBe(status.OK);

    writeFileSync(file, good);
    await until(
      async () => (await statusOfCall(method, [`Bearer ${late}`])) === status.UNAUTHENTICATED,
    );
    expect(await statusOfCall(method, [`Bearer ${tokenOf.get("infer")}`])).toBe(status.OK);
  });
});
