/** The computations that a worker does: each may take longer than the event loop can wait. */
import type { Discrimination } from "../vector.js";
import { type DiscriminationTask, discriminate } from "./discrimination.js";
import { deriveLayer, type LayerResult, type LayerTask } from "./layer.js";

export type Task = LayerTask | DiscriminationTask;

export type ResultOf<T extends Task> = T extends LayerTask ? LayerResult : Discrimination;

export function compute<T extends Task>(task: T): ResultOf<T>;
export function compute(task: Task): LayerResult | Discrimination {
  return task.kind === "derive" ? deriveLayer(task) : discriminate(task);
}

/** Buffers that may move to the worker instead of being copied. */
export function buffersOf(task: Task): ArrayBuffer[] {
  const views =
    task.kind === "derive"
      ? [task.differences.kept.values, task.differences.evenSum, task.differences.oddSum]
      : [task.reads.values];
  return views.map((view) => view.buffer as ArrayBuffer);
}
