/** From configuration and model to what the engine is opened with. */
import type { Config } from "../config/schema.js";
import type { Adapter } from "../model/adapter.js";
import type { LoadedModel } from "../model/model.js";
import { NATIVE_API_VERSION, type NativeEngineOptions } from "../native/binding.js";

/** Means nothing: requests do not choose it. */
const MERGED_HANDLE = 1;

export function engineOptions(
  config: Config,
  model: LoadedModel,
  merged: Adapter | null,
): NativeEngineOptions {
  return {
    apiVersion: NATIVE_API_VERSION,
    config: model.config,
    checkpoint: model.checkpoint.native,
    device: config.device,
    cpuIsa: config.cpuIsa,
    weightFormat: config.dtype,
    kvDtype: config.kvDtype,
    threads: config.threads,
    kvCacheBytes: config.kvCacheBytes,
    maxBatchTokens: config.maxBatchTokens,
    maxRunningSequences: config.maxRunningSequences,
    maxSteeringsPerRequest: config.maxSteerings,
    captureStagingBytes: config.captureStagingBytes,
    prefixCache: config.prefixCache,
    mergedAdapter: merged && { handle: MERGED_HANDLE, ...merged.native },
    maxAdapterBytes: config.maxAdapterBytes,
    ...model.tokenBytes,
  };
}
