/** LoadAdapter and UnloadAdapter: only folders below the one that the operator set aside. */
import { realpath } from "node:fs/promises";
import path from "node:path";
import { FailedPreconditionError, NotFoundError, StartupError } from "../errors.js";
import { type AdapterInfo, type AdapterRegistry, checkAdapterId } from "../model/adapters.js";

export class AdapterLoading {
  /** `folder` undefined: the operator allows no loading. */
  constructor(private readonly folder: string | undefined) {}

  get enabled(): boolean {
    return this.folder !== undefined;
  }

  /**
   * Throws FailedPreconditionError when loading is off or the folder is no adapter of the model,
   * InvalidArgumentError, NotFoundError, AlreadyExistsError, ResourceExhaustedError.
   */
  async load(adapters: AdapterRegistry, id: string): Promise<AdapterInfo> {
    const parent = this.requireFolder();
    checkAdapterId(id, "adapter_id");
    const folder = await folderBelow(parent, id);
    if (folder === null) throw new NotFoundError("adapter", id);
    try {
      return await adapters.load(id, folder);
    } catch (error) {
      if (!(error instanceof StartupError)) throw error;
      // Clients learn what is wrong, but nothing of the server's folders.
      const message = error.message.replaceAll(folder, id);
      throw new FailedPreconditionError(message, "ADAPTER_REFUSED");
    }
  }

  /** Throws FailedPreconditionError, InvalidArgumentError, NotFoundError. */
  unload(adapters: AdapterRegistry, id: string): void {
    this.requireFolder();
    adapters.remove(id);
  }

  private requireFolder(): string {
    if (this.folder !== undefined) return this.folder;
    throw new FailedPreconditionError(
      "loading adapters by rpc is switched off (--adapter-dir)",
      "ADAPTER_LOADING_OFF",
    );
  }
}

/** Null when it does not exist, or a link leads out of the parent. */
async function folderBelow(parent: string, name: string): Promise<string | null> {
  try {
    const root = await realpath(parent);
    const folder = await realpath(path.join(root, name));
    return path.dirname(folder) === root ? folder : null;
  } catch {
    return null;
  }
}
