/** The computations that a worker does: each may take longer than the event loop can wait. */
import { type DiscriminationTask, discriminate } from "../derive/discrimination.js";
import { deriveLayer, type LayerResult, type LayerTask } from "../derive/layer.js";
import { type ImportResult, type ImportTask, importFile } from "../formats/import.js";
import type { Discrimination } from "../vector.js";

export type Task = LayerTask | DiscriminationTask | ImportTask;

export type ResultOf<T extends Task> = T extends LayerTask
  ? LayerResult
  : T extends DiscriminationTask
    ? Discrimination
    : ImportResult;

export function compute<T extends Task>(task: T): ResultOf<T>;
export function compute(task: Task): LayerResult | Discrimination | ImportResult {
  switch (task.kind) {
    case "derive":
      return deriveLayer(task);
    case "discriminate":
      return discriminate(task);
    case "import":
      return importFile(task);
  }
}

/** Buffers that move to the worker instead of being copied. */
export function buffersOf(task: Task): ArrayBuffer[] {
  return viewsOf(task).map((view) => view.buffer as ArrayBuffer);
}

function viewsOf(task: Task): ArrayBufferView[] {
  switch (task.kind) {
    case "derive": {
      const { kept, evenSum, oddSum } = task.differences;
      return [kept.values, evenSum, oddSum];
    }
    case "discriminate":
      return [task.reads.values];
    case "import":
      return [task.file];
  }
}
