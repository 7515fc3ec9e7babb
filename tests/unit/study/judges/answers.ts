/** Answers that tests let a judge judge. */
import type { JudgedAnswer } from "../../../../src/study/judges/judge.js";

export function answer(
  text: string,
  { row = "row", function: name = "f" as string | null } = {},
): JudgedAnswer {
  return {
    row,
    text,
    prompt: { id: row, task: row, text: `Write ${name}.`, function: name, kind: null },
  };
}
