// The filters of the sample answers. Untrusted text reaches the page through textContent only.

/**
 * @typedef {{ purpose: string, adapter: string, promptSet: string, vector: string, layers: string, magnitude: string }} Cell
 * @typedef {{ row: string, cell: number, prompt: number, verdict: string, notes: string[], text: string, paired: number }} Row
 *   `paired`: index of the unsteered row, -1 for none.
 * @typedef {{ cells: Cell[], prompts: string[], rows: Row[], filters: { key: keyof Cell | "verdict", label: string, options: string[] }[] }} Samples
 */

const PAGE_SIZE = 8;

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} className
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** @param {string} id */
function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * @param {string} heading
 * @param {Row} row
 */
function answerOf(heading, row) {
  const box = element("div", "answer");
  const head = element("div", "answer-head");
  head.append(element("span", "answer-side", heading));
  head.append(element("span", `badge badge-${row.verdict.replace(/[^a-z-]/g, "")}`, row.verdict));
  box.append(head, element("pre", "answer-text", row.text || "(empty answer)"));
  for (const note of row.notes) box.append(element("p", "answer-note", note));
  return box;
}

/**
 * @param {Samples} samples
 * @param {Row} row
 */
function pairOf(samples, row) {
  const cell = samples.cells[row.cell];
  const pair = element("article", "pair");
  if (!cell) return pair;
  const head = element("header", "pair-head");
  const acts = `${cell.vector} · ${cell.magnitude} · ${cell.layers}`;
  head.append(element("h3", "pair-title", acts));
  head.append(element("p", "pair-where", `${cell.purpose} · ${cell.adapter} · ${cell.promptSet}`));
  const prompt = element("pre", "pair-prompt", samples.prompts[row.prompt]);
  const sides = element("div", "pair-sides");
  const unsteered = samples.rows[row.paired];
  if (unsteered) sides.append(answerOf("Unsteered", unsteered));
  sides.append(answerOf("Steered", row));
  const id = element("p", "pair-id");
  id.append("Row ", element("code", "", row.row));
  pair.append(head, prompt, sides, id);
  return pair;
}

/** @param {Samples} samples */
function start(samples) {
  const steered = samples.rows.filter((row) => row.paired >= 0);
  const form = byId("filters");
  const list = byId("sample-list");
  const count = byId("sample-count");
  const more = byId("sample-more");
  /** @type {Map<string, HTMLSelectElement>} */
  const selects = new Map();
  let shown = PAGE_SIZE;

  const search = element("input", "");
  search.type = "search";
  search.name = "text";
  search.placeholder = "prompt or answer";

  /** @param {Row} row */
  const matches = (row) => {
    const cell = samples.cells[row.cell];
    for (const { key } of samples.filters) {
      const wanted = selects.get(key)?.value ?? "";
      const has = key === "verdict" ? row.verdict : cell?.[key];
      if (wanted !== "" && has !== wanted) return false;
    }
    const text = search.value.trim().toLowerCase();
    if (text === "") return true;
    const unsteered = samples.rows[row.paired]?.text ?? "";
    return [row.text, unsteered, samples.prompts[row.prompt] ?? "", row.row].some((place) =>
      place.toLowerCase().includes(text),
    );
  };

  const show = () => {
    const found = steered.filter(matches);
    const page = found.slice(0, shown);
    list.replaceChildren(...page.map((row) => pairOf(samples, row)));
    count.textContent = `${found.length} of ${steered.length} pairs`;
    more.hidden = found.length <= shown;
  };
  const restart = () => {
    shown = PAGE_SIZE;
    show();
  };

  for (const { key, label, options } of samples.filters) {
    const field = element("label", "field");
    const select = element("select", "");
    select.name = key;
    select.append(new Option("all", ""), ...options.map((option) => new Option(option, option)));
    select.addEventListener("change", restart);
    selects.set(key, select);
    field.append(element("span", "", label), select);
    form.append(field);
  }
  const field = element("label", "field field-wide");
  field.append(element("span", "", "Text"), search);
  search.addEventListener("input", restart);
  form.append(field);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    shown += PAGE_SIZE;
    show();
  });
  show();
}

if (document.getElementById("filters")) start(JSON.parse(byId("samples").textContent ?? ""));
