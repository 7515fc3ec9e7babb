/** What the parity tests run on: every instruction set of this machine, or a CUDA device. */
import type { NativeEngineOptions } from "../../src/native/binding.js";
import { availableIsas } from "./isas.js";

export interface ParityDevice {
  name: string;
  options: Pick<NativeEngineOptions, "device" | "cpuIsa">;
  onCuda: boolean;
}

/**
 * `LLAMA_STEER_TEST_DEVICE` names a CUDA device; the plugin lies beside the addon that
 * `LLAMA_STEER_ADDON_PATH` names. See the step cuda-parity of scripts/check.mjs.
 */
export function parityDevices(): ParityDevice[] {
  const device = process.env["LLAMA_STEER_TEST_DEVICE"];
  if (device) return [{ name: device, options: { device, cpuIsa: "auto" }, onCuda: true }];
  return availableIsas().map((isa) => ({
    name: isa,
    options: { device: "cpu", cpuIsa: isa },
    onCuda: false,
  }));
}
