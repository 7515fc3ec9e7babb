/** A server of the base checkpoint with a study's vector baked in. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { LlamaSteerClient } from "../../client/client.js";
import { vectorFile } from "../../study/plan/vectors.js";
import type { StudyCell, StudyPlan } from "../../study/records.js";
import type { BakedServer } from "../../study/run/run.js";
import { coefficientOf } from "../../study/run/steering.js";
import { runFiles } from "../../study/run-folder.js";
import { foldBiases } from "../bake/fold.js";
import { openSource } from "../bake/source.js";
import { writeBaked } from "../bake/write.js";
import { startDemoServer } from "../demo-server.js";
import { CommandError } from "../exit.js";
import { vectorFromFile } from "../vector-source.js";

/** `serve`: arguments of the server beside its checkpoint. */
export async function serveBaked(
  plan: StudyPlan,
  cell: StudyCell,
  { model, serve, runFolder }: { model: string; serve: readonly string[]; runFolder: string },
  signal: AbortSignal,
): Promise<BakedServer> {
  const vector = plan.vectors.find(({ name }) => name === cell.vector);
  const [layer] = cell.layers;
  if (!vector || layer === undefined) throw new CommandError(`${cell.id}: has nothing to bake`);
  const folder = await mkdtemp(path.join(tmpdir(), "llama-steer-baked-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const source = openSource(model);
    const { name, rows } = vectorFromFile(vectorFile(runFiles(runFolder).vectors, vector.name), [
      layer,
    ]);
    // The coefficient that a request carries is a float32.
    const coefficient = Math.fround(cell.magnitude * coefficientOf(vector, layer));
    const biases = foldBiases(
      [{ name, rows, steering: { coefficient } }],
      source.hiddenSize,
      source.blocks,
    );
    const out = path.join(folder, "checkpoint");
    await writeBaked(source, biases, out, { cell: cell.id }, () => {}, signal);
    const server = await startDemoServer(["--model", out, ...serve], signal);
    const client = new LlamaSteerClient({ address: server.address });
    const close = async () => {
      client.close();
      await server.stop();
      await remove();
    };
    return { client, close };
  } catch (error) {
    await remove();
    throw error;
  }
}
