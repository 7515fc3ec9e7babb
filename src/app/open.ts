/** Opens what a server stands on. */
import type { Config } from "../config/schema.js";
import { ServiceError, StartupError } from "../errors.js";
import { type Adapter, openAdapter } from "../model/adapter.js";
import { AdapterRegistry } from "../model/adapters.js";
import { type LoadedModel, mergedModel, openModel } from "../model/model.js";
import type { Engine } from "../native/engine.js";
import type { Logger } from "../observability/logger.js";
import { openStore, placeOf } from "../vectors/open-store.js";
import { VectorRegistry } from "../vectors/registry.js";
import type { OnVectorLoad } from "../vectors/resident.js";

/** With the adapter that is merged into it, if any. Throws a StartupError. */
export async function openModelAs(
  config: Config,
  name: string,
): Promise<{ model: LoadedModel; merged: Adapter | null }> {
  const model = openModel(config.model, name);
  if (config.mergeAdapter === undefined) return { model, merged: null };
  const merged = await openAdapter(config.mergeAdapter, model.config);
  return { model: mergedModel(model, merged.digest), merged };
}

/** The adapters of the command line. The engine must be ready. Throws a StartupError. */
export async function loadAdapters(
  config: Config,
  model: LoadedModel,
  engine: Engine,
  logger: Logger,
): Promise<AdapterRegistry> {
  const adapters = new AdapterRegistry(engine, model.config);
  for (const { id, folder } of config.adapter) {
    try {
      const { digest } = await adapters.load(id, folder);
      logger.info({ adapter: id, digest }, "adapter loaded");
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      throw new StartupError(`--adapter ${id}: ${error.message}`);
    }
  }
  return adapters;
}

/** The caller closes it. Throws a StartupError. */
export async function openRegistry(
  config: Config,
  model: LoadedModel,
  engine: Engine,
  logger: Logger,
  onVectorLoad: OnVectorLoad,
): Promise<VectorRegistry> {
  const place = placeOf(config.registry);
  const store = await openStore(config.registry, {
    pollIntervalMs: config.registryPollSeconds * 1000,
    onWarning: (text) => logger.warn({ registry: place }, text),
  });
  try {
    const limits = {
      maxLabels: config.maxLabels,
      maxLabelBytes: config.maxLabelBytes,
      maxResidentBytes: config.maxResidentVectorBytes,
      maxRegistryBytes: config.maxRegistryBytes,
    };
    return await VectorRegistry.open(store, engine, model.config, limits, onVectorLoad);
  } catch (error) {
    await store.close();
    throw error;
  }
}
