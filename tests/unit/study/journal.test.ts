import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Journal, readJournal } from "../../../src/study/journal.js";
import { TemporaryFolder } from "../../support/tiny-checkpoint.js";

let folder: TemporaryFolder;
beforeEach(() => {
  folder = new TemporaryFolder();
});
afterEach(() => folder.remove());

const RECORDS = [
  { row: "a#0", text: "plain" },
  { row: "b#0", text: "zwei\nZeilen, 漢字 and a null \u0000" },
  { row: "c#0", text: "" },
];

async function write(file: string, records: readonly object[]): Promise<void> {
  const journal = await Journal.open(file);
  for (const record of records) journal.append(record);
  await journal.close();
}

test("what was appended is read again, in its order, also over two openings", async () => {
  const file = folder.join("journal.jsonl");
  await write(file, RECORDS.slice(0, 1));
  await write(file, RECORDS.slice(1));
  expect((await readJournal(file)).records).toEqual(RECORDS);
  expect((await readJournal(folder.join("none"))).records).toEqual([]);
});

test("torn at any byte, a journal keeps its whole lines and takes the lost ones again", async () => {
  const whole = folder.join("whole.jsonl");
  await write(whole, RECORDS);
  const bytes = readFileSync(whole);
  const ends = [...bytes.entries()].filter(([, byte]) => byte === 0x0a).map(([at]) => at + 1);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const file = folder.join("torn.jsonl");
    writeFileSync(file, bytes.subarray(0, cut));
    const kept = ends.filter((end) => end <= cut).length;
    const journal = await Journal.open<object>(file);
    expect(journal.records, `cut at ${cut}`).toEqual(RECORDS.slice(0, kept));
    for (const record of RECORDS.slice(kept)) journal.append(record);
    await journal.close();
    expect(readFileSync(file).equals(bytes), `cut at ${cut}`).toBe(true);
  }
});

test("zeros at the end, which a power cut can leave, are a torn line", async () => {
  const file = folder.join("zeros.jsonl");
  await write(file, RECORDS);
  writeFileSync(file, Buffer.alloc(100), { flag: "a" });
  const journal = await Journal.open<object>(file);
  expect(journal.records).toEqual(RECORDS);
  await journal.close();
  expect(readFileSync(file).includes(0)).toBe(false);
});

test("damage before the end is an error that names the line, and changes nothing", async () => {
  const file = folder.join("damaged.jsonl");
  const content = '{"row":"a"}\n{"row":\n{"row":"c"}\n';
  writeFileSync(file, content);
  await expect(Journal.open(file)).rejects.toThrow(`${file}:2: damaged`);
  expect(readFileSync(file, "utf8")).toBe(content);
});
