/** Captured rows as messages of the contract. */
import type { ActivationChunk } from "../generated/llamasteer/v1/ActivationChunk.js";
import type { DType } from "../generated/llamasteer/v1/DType.js";
import type { Site } from "../generated/llamasteer/v1/Site.js";
import type { DTypeName, NativeActivationEvent, NativeCaptureSite } from "../native/binding.js";

const SITES: Record<NativeCaptureSite, Site> = {
  resid_pre: "SITE_RESID_PRE",
  attn_out: "SITE_ATTN_OUT",
  mlp_out: "SITE_MLP_OUT",
  resid_post: "SITE_RESID_POST",
  final_norm: "SITE_FINAL_NORM",
};

const DTYPES: Record<DTypeName, DType> = {
  f32: "D_TYPE_FLOAT32",
  bf16: "D_TYPE_BFLOAT16",
  f16: "D_TYPE_FLOAT16",
};

export function activationsMessage(
  inputIndex: number,
  chunk: NativeActivationEvent,
): ActivationChunk {
  return {
    inputIndex,
    site: SITES[chunk.site],
    layer: chunk.layer,
    positions: Array.from(chunk.positions),
    tokenIds: Array.from(chunk.tokenIds),
    dtype: DTYPES[chunk.dtype],
    shape: [chunk.rows, chunk.cols],
    data: chunk.data,
    lens: chunk.lens.map((top) => ({ top })),
  };
}
