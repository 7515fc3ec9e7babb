"""Sections of the page about single kernels: attention, all of them, tests and checkers."""

import re
import statistics
import xml.etree.ElementTree as ElementTree

from words import MISSING, number, percent, table


def attention_tflops(results):
    """Tokens -> TFLOP/s of ours; (tokens, backend) -> TFLOP/s of PyTorch. Medians over rounds."""
    ours, theirs = {}, {}
    for run in results.attention["ours"]:
        for case in run["cases"]:
            match = re.fullmatch(r"rows=(\d+) context=0", case["variant"])
            if case["kernel"] == "AttentionPrefill" and match:
                ours.setdefault(int(match[1]), []).append(case["tflops"])
    for run in results.attention["pytorch"]:
        for row in run["rows"]:
            if row["kind"] == "prefill" and "tflops" in row:
                theirs.setdefault((row["tokens"], row["backend"]), []).append(row["tflops"])
    return tuple({key: statistics.median(v) for key, v in d.items()} for d in (ours, theirs))


def attention_section(results):
    ours, theirs = attention_tflops(results)
    rows = [
        [tokens] + [number(v, "", 1) for v in (ours[tokens], theirs.get((tokens, "cudnn")), theirs.get((tokens, "flash")))]
        for tokens in sorted(ours)
    ]
    decoded, libraries = {}, {}
    for run in results.attention["ours"]:
        for case in run["cases"]:
            if case["kernel"] == "AttentionDecode":
                decoded.setdefault(case["variant"], []).append(case["us"])
    for run in results.attention["pytorch"]:
        for row in run["rows"]:
            if row["kind"] == "decode" and "us" in row:
                key = f"streams={row['streams']} context={row['context']}", row["backend"]
                libraries.setdefault(key, []).append(row["us"])
    middle = lambda values: number(statistics.median(values) if values else None, " µs", 1)
    steps = [
        [case, middle(us), middle(libraries.get((case, "cudnn"))), middle(libraries.get((case, "flash")))]
        for case, us in decoded.items()
    ]
    head = ["ours", "SDPA, cuDNN", "SDPA, flash"]
    return [
        "## Attention beside PyTorch",
        "Forward, heads and keys of one layer of the shape, bf16; by turns. Ours reads pages that lie in no "
        "order and gives float32 and bf16. A causal prompt, TFLOP/s (masked pairs are not counted):",
        table(["tokens", *head], rows) if rows else MISSING + ".",
        "One query a sequence (to PyTorch the heads of a group are queries of one key head):",
        table(["batch", *head], steps) if steps else MISSING + ".",
    ]


def kernels_section(results):
    if results.kernels is None:
        return ["## Kernels", MISSING + "."]
    rows = [
        [
            f"`{case['kernel']}`",
            case["variant"],
            f"{case['us']:.2f}",
            f"{case['gbps']:.0f}",
            f"{case['tflops']:.1f}" if case["flop"] else "",
            percent(case["share"]),
        ]
        for case in results.kernels["cases"]
    ]
    limits = results.kernels["limits"]
    # A launch is timed as it stands between others, as in a step.
    overlap = "launches overlapping as in a step" if results.kernels.get("overlap") else "no overlap"
    return [
        "## Kernels",
        f"Medians over replayed graphs, {overlap}, on buffers that alternate beyond the L2 cache (up to 64 of them: what is "
        f"small stays in it, as it does in a model). Copied at {limits['copy_gbps']:.0f} GB/s; `mma.sync` alone "
        f"does {limits['mma_tflops']:.0f} TFLOP/s, a dense product of the library "
        f"{limits['dense_tflops']:.0f}. The share is of the time that bandwidth and dense product leave.",
        table(["kernel", "case", "µs", "GB/s", "TFLOP/s", "share"], rows),
    ]


def tests_section(results):
    counts = {"tests": 0, "failures": 0, "skipped": 0}
    failed = []
    for name in ("tests-parallel.xml", "tests-alone.xml"):
        path = results.folder / name
        if not path.exists():
            continue
        suite = ElementTree.parse(path).getroot()
        for key in counts:
            counts[key] += int(suite.get(key, 0))
        failed += [case.get("name") for case in suite.iter("testcase") if case.get("status") == "fail"]
    if counts["tests"] == 0:
        said = f"`ctest -L cuda`: {MISSING}."
    else:
        said = (
            f"`ctest -L cuda`: {counts['tests']} tests, {counts['failures']} failed, "
            f"{counts['skipped']} skipped."
        )
    text = ["## Tests and checks", said]
    text += ["Failed: " + ", ".join(f"`{name}`" for name in failed) + "."] if failed else []
    runs = results.checker_runs("sanitize.jsonl")
    if runs:
        rows = [
            [run["tool"], f"`{run['program'][:60]}`", run["summary"] or "no summary", run["rc"]]
            for run in runs
        ]
        text.append(table(["compute-sanitizer", "program", "it says", "exit"], rows))
    else:
        text.append(f"compute-sanitizer: {MISSING}.")
    return text
