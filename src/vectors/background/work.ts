/** The computations that a worker does: each may take longer than the event loop can wait. */
import { deriveLayer, type LayerResult, type LayerTask } from "../derive/layer.js";
import { type ScoreResult, type ScoreTask, scoreReads } from "../derive/score.js";
import { type ImportResult, type ImportTask, importFile } from "../formats/import.js";

export type Task = LayerTask | ScoreTask | ImportTask;

export type ResultOf<T extends Task> = T extends LayerTask
  ? LayerResult
  : T extends ScoreTask
    ? ScoreResult
    : ImportResult;

export function compute<T extends Task>(task: T): ResultOf<T>;
export function compute(task: Task): LayerResult | ScoreResult | ImportResult {
  switch (task.kind) {
    case "derive":
      return deriveLayer(task);
    case "score":
      return scoreReads(task);
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
    case "score":
      return [task.reads.values];
    case "import":
      return [task.file];
  }
}
