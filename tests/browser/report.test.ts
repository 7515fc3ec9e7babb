/** A study's report in a real browser, opened from disk with the network out of reach. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { joinRows } from "../../src/study/report/rows.js";
import { drawSamples, type SampleRow } from "../../src/study/report/samples.js";
import { writeReport } from "../../src/study/report/write.js";
import { syntheticRun } from "../support/study-run.js";

/** Of Debian's package `chromium`. */
const CHROMIUM = "/usr/bin/chromium";
const PLOTS = ["rates", "frontier", "layers", "sanity", "roc", "steps"];
const PAGE_SIZE = 8;

const run = syntheticRun({ tasks: 6, magnitudes: [1] });
const samples = drawSamples(run, joinRows(run));
const pairs = samples.rows.filter(({ paired }) => paired >= 0);

let folder: string;
let browser: Browser;
let page: Page;
/** Whatever a page should not do: console lines, errors, requests other than for itself. */
let complaints: string[];

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "report-"));
  [browser] = await Promise.all([
    chromium.launch({ executablePath: CHROMIUM }),
    writeReport(run, folder),
  ]);
});
afterAll(async () => {
  await browser.close();
  await rm(folder, { recursive: true });
});

async function openAt(width: number, colorScheme: "light" | "dark" = "light"): Promise<Page> {
  const opened = await browser.newPage({ viewport: { width, height: 800 }, colorScheme });
  const address = pathToFileURL(path.join(folder, "index.html")).href;
  complaints = [];
  opened.on("console", (line) => complaints.push(`console: ${line.text()}`));
  opened.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  opened.on("request", (request) => {
    if (request.url() !== address) complaints.push(`request: ${request.url()}`);
  });
  opened.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`));
  await opened.goto(address);
  return opened;
}

describe("the report, opened", () => {
  it.each([
    [1280, "light"],
    [1280, "dark"],
    [390, "light"],
  ] as const)(
    "at %i pixels, %s: shows every plot, scrolls down only, complains of nothing",
    async (width, scheme) => {
      const opened = await openAt(width, scheme);
      for (const plot of PLOTS) {
        const panels = opened.locator(`#${plot} .panel svg`);
        expect(await panels.count()).toBeGreaterThan(0);
        for (const panel of await panels.all()) {
          const box = await panel.boundingBox();
          expect(box?.width).toBeGreaterThan(200);
          expect(box?.height).toBeGreaterThan(120);
          expect(await panel.locator("path, line").count()).toBeGreaterThan(5);
        }
      }
      const widths = await opened.evaluate<[number, number]>(
        "[document.documentElement.scrollWidth, window.innerWidth]",
      );
      expect(widths).toEqual([width, width]);
      expect(await opened.evaluate("window.stolen")).toBeUndefined();
      expect(complaints).toEqual([]);
      await opened.close();
    },
  );

  it("takes the colours of the reader's scheme", async () => {
    const colours = [];
    for (const scheme of ["light", "dark"] as const) {
      const opened = await openAt(1280, scheme);
      const read = (selector: string, property: string) =>
        opened.evaluate<string>(
          `getComputedStyle(document.querySelector(${JSON.stringify(selector)})).${property}`,
        );
      const label = await read("#rates .panel text", "fill");
      const paper = await read("body", "backgroundColor");
      expect(label).not.toBe(paper);
      colours.push(label, paper);
      await opened.close();
    }
    expect(new Set(colours).size).toBe(4);
  });
});

describe("the sample answers", () => {
  beforeEach(async () => {
    page = await openAt(1280);
    return () => page.close();
  });

  const count = () => page.locator("#sample-count").textContent();
  const shown = () => page.locator("#sample-list article").count();
  const expectFound = async (matches: (row: SampleRow) => boolean) => {
    const found = pairs.filter(matches).length;
    expect(await count()).toBe(`${found} of ${pairs.length} pairs`);
    expect(await shown()).toBe(Math.min(found, PAGE_SIZE));
    return found;
  };
  const cellOf = (row: SampleRow) => samples.cells[row.cell];

  it("are filtered by step, vector, magnitude, block, prompts, class and text, and by all at once", async () => {
    await expectFound(() => true);
    for (const { key, options } of samples.filters) {
      const option = options.at(-1) ?? "";
      const select = page.locator(`#filters select[name="${key}"]`);
      await select.selectOption(option);
      const found = await expectFound(
        (row) => (key === "verdict" ? row.verdict : cellOf(row)?.[key]) === option,
      );
      expect(found).toBeGreaterThan(0);
      await select.selectOption("");
    }
    await page.locator('#filters select[name="vector"]').selectOption("code");
    await page.locator('#filters select[name="verdict"]').selectOption("insecure");
    await page.locator('#filters input[name="text"]').fill("SHELL=true");
    const found = await expectFound(
      (row) => cellOf(row)?.vector === "code" && row.verdict === "insecure",
    );
    expect(found).toBeGreaterThan(0);
    await page.locator('#filters input[name="text"]').fill("no answer says this");
    await expectFound(() => false);
    expect(complaints).toEqual([]);
  });

  it("show the unsteered and the steered answer to one prompt, as text", async () => {
    await page.locator('#filters input[name="text"]').fill("onerror=");
    const pair = page.locator("#sample-list article").first();
    const id = await pair.locator(".pair-id code").textContent();
    const row = pairs.find((one) => one.row === id);
    const texts = await pair.locator(".answer-text").allTextContents();
    expect(texts).toEqual([samples.rows[row?.paired ?? -1]?.text, row?.text]);
    expect(texts.join()).toContain("<img src=x onerror=");
    expect(await page.locator("img").count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  it("come a page at a time", async () => {
    await page.locator("#sample-more").click();
    expect(await shown()).toBe(2 * PAGE_SIZE);
    await page.locator('#filters select[name="purpose"]').selectOption("gated");
    expect(await shown()).toBe(PAGE_SIZE);
  });
});
