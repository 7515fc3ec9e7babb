#!/usr/bin/env python3
"""Turns what bench/run-cuda.sh measured into a page: bench/results/cuda-<gpu>.md.

  report.py FOLDER [--report FILE]

What was not measured is said to be so. The standard library is enough.
"""

import argparse
import re
import statistics
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import floors
from measured import Group, Results, words_of

ROOT = Path(__file__).resolve().parents[2]
MISSING = "not measured"


def number(value, unit="", digits=2):
    return MISSING if value is None else f"{value:.{digits}f}{unit}"


def percent(share):
    return MISSING if share is None else f"{100 * share:.0f}%"


def change(ratio):
    """Of (ratio, deviation) as a change in percent."""
    if ratio is None:
        return MISSING
    return f"{100 * (ratio[0] - 1):+.2f}% ± {100 * ratio[1]:.2f}"


def batch_name(words):
    streams = int(words["streams"])
    return f"{streams} stream{'s' * (streams > 1)}, context {words['context']}"


def verdict(met):
    return "" if met is None else "met" if met else "**missed**"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def limits_of(results):
    """(copy GB/s, dense TFLOP/s) of this GPU, None where unmeasured."""
    kernels = (results.kernels or {}).get("limits", {})
    torch = results.limits or {}
    copies = [c for c in (kernels.get("copy_gbps"), torch.get("copy_gbps")) if c]
    dense = torch.get("dense_tflops") or kernels.get("mma_tflops")
    return max(copies, default=None), dense


def limits_section(results):
    group = Group(results.engine("forward"))
    copy_gbps, dense = limits_of(results)
    shape = floors.SHAPES[(results.engine("forward") or {}).get("shape", "llama-3.1-8b")]
    rows = []
    for order in group.orders():
        op, words = words_of(order)
        ours, theirs = group.median(order, "ours"), group.median(order, "pytorch")
        if op == "decode":
            streams, context = int(words["streams"]), int(words["context"])
            name = f"decode, {batch_name(words)}"
            floor = floors.decode_ms(shape, streams, context + int(words["tokens"]) / 2, copy_gbps)
            aim = floors.DECODE_AIM.get(streams, 0.8)
            rate = f"{1e3 * streams / ours:.0f} tokens/s" if ours else MISSING
        else:
            tokens = int(words["tokens"])
            name, aim = f"prefill {tokens}", floors.PREFILL_AIM
            floor = floors.prefill_ms(shape, tokens, dense)
            rate = f"{1e3 * tokens / ours:.0f} tokens/s" if ours else MISSING
        share = floor / ours if floor and ours else None
        rows.append(
            [
                name,
                number(floor, " ms"),
                f"≥ {100 * aim:.0f}% of the floor",
                number(ours, " ms"),
                rate,
                percent(share),
                number(theirs, " ms"),
                verdict(share >= aim if share else None),
            ]
        )
    head = ["case", "floor", "aim", "ours", "", "share of the floor", "PyTorch", ""]
    text = [
        "## The limits table",
        f"Copied at {number(copy_gbps, ' GB/s', 0)}, dense bf16 product at "
        f"{number(dense, ' TFLOP/s', 0)}, both measured in this run. The floor of a decode step is its "
        "bytes (weights, keys and values) at that bandwidth, of a prefill its operations at that rate. "
        "Times are medians of "
        f"{group.rounds} rounds in which llama-steer and PyTorch took turns.",
        table(head, rows) if rows else MISSING + ".",
    ]
    if "pytorch" in group.greetings:
        mode = group.greetings["pytorch"].get("mode")
        text.append(
            f"PyTorch {group.greetings['pytorch'].get('torch')}: a plain Llama forward (bench/cuda/llama.py, "
            f"mode `{mode}`), timed on the device alone; ours from submission to the events of the engine, "
            "sampling and scheduling included. Keeping one order of summation, so that a row's bits do not "
            "depend on its batch, is not an option that could be turned off: its cost is in every figure."
        )
    text.append(table(["case", "aim", "ours", ""], other_aims(results)))
    return text


def other_aims(results):
    """Attention, steering and capture: what is a ratio to something else in the same run."""
    ours, theirs = attention_tflops(results)
    longest = max((n for n in ours if n <= 8192), default=None)
    cudnn = theirs.get((longest, "cudnn"))
    attention = ours[longest] / cudnn if longest and cudnn else None
    steering, capture = Group(results.engine("steering")), Group(results.engine("capture"))
    steered = steering_ratio(steering, "distinct")
    captured = capture_ratio(capture, "ours", "f32")
    return [
        [
            f"attention forward, causal, GQA, {longest or 8192} tokens",
            "≥ cuDNN through PyTorch",
            f"{attention:.2f} of its speed" if attention else MISSING,
            verdict(attention >= 1 if attention else None),
        ],
        [
            "steering, every request distinct, all layers",
            "≤ 0.5%",
            change(steered),
            verdict(steered[0] <= 1.005 if steered else None),
        ],
        [
            "capture of all layers, float32",
            "≤ 10% over the plain prefill",
            change(captured),
            verdict(captured[0] <= 1.1 if captured else None),
        ],
    ]


def steering_ratio(group, steering):
    """Of the largest batch."""
    batches = [words_of(order)[1] for order in group.orders()]
    streams = max((int(words["streams"]) for words in batches), default=None)
    pairs = {
        words["steering"]: order
        for order, words in ((o, words_of(o)[1]) for o in group.orders())
        if int(words["streams"]) == streams
    }
    if steering not in pairs or "none" not in pairs:
        return None
    return group.ratio((pairs[steering], "ours"), (pairs["none"], "ours"))


def capture_ratio(group, contestant, dtype):
    orders = {words_of(o)[1].get("dtype", "none"): o for o in group.orders()}
    if dtype not in orders or "none" not in orders:
        return None
    return group.ratio((orders[dtype], contestant), (orders["none"], contestant))


def steering_section(results):
    group = Group(results.engine("steering"))
    rows = []
    plain = {}
    for order in group.orders():
        words = words_of(order)[1]
        plain.setdefault((words["streams"], words["context"]), None)
        if words["steering"] == "none":
            plain[words["streams"], words["context"]] = order
    for order in group.orders():
        words = words_of(order)[1]
        base = plain[words["streams"], words["context"]]
        ratio = None if base is None else group.ratio((order, "ours"), (base, "ours"))
        rows.append(
            [
                batch_name(words),
                words["steering"],
                number(group.median(order, "ours"), " ms", 3),
                "" if order == base else change(ratio),
            ]
        )
    return [
        "## Steering",
        f"A decode step, {group.rounds} rounds of all cases by turns; the change is the median of the ratios "
        "to the unsteered batch of the same round, with their median deviation. `distinct`: a vector of its "
        "own for each stream, on all layers.",
        table(["batch", "steering", "a step", "change"], rows) if rows else MISSING + ".",
    ]


def capture_section(results):
    group = Group(results.engine("capture"))
    rows = []
    for contestant in group.contestants:
        for order in group.orders():
            op, words = words_of(order)
            time = group.median(order, contestant)
            dtype = words.get("dtype", "none")
            ratio = None if op == "prefill" else capture_ratio(group, contestant, dtype)
            rows.append(
                [
                    f"{contestant}, {words['tokens']} tokens",
                    "all layers, " + dtype if op == "capture" else "plain prefill",
                    number(time, " ms"),
                    "" if op == "prefill" else change(ratio),
                ]
            )
    return [
        "## Capture",
        "From submission until the client has every row.",
        table(["prompt", "captured", "time", "change"], rows) if rows else MISSING + ".",
    ]


def comparison_section(results, name, title, text):
    group = Group(results.engine(name))
    rows = []
    for order in group.orders():
        op, words = words_of(order)
        if op == "decode":
            label = f"decode, {batch_name(words)}, a step"
        else:
            label = f"prefill {words['tokens']}"
        rows.append([label] + [number(group.median(order, c), " ms", 3) for c in group.contestants])
    body = table(["case", *group.contestants], rows) if rows else MISSING + "."
    return [f"## {title}", text, body]


def memory_section(results):
    if results.memory is None:
        return ["## Memory", f"KV cache of what is free: {MISSING}."]
    blocks, tokens = results.memory["kv_blocks"], results.memory["kv_blocks"] * floors.BLOCK_TOKENS
    shape = floors.SHAPES[results.memory["shape"]]
    weights = results.memory["weight_bytes"] / 2**30
    return [
        "## Memory",
        f"Beside {weights:.1f} GiB of weights the engine made {blocks} KV blocks of what was free: {tokens} tokens, "
        f"{tokens * shape.token_bytes / 2**30:.1f} GiB.",
    ]


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


def page(results):
    machine = results.machine
    gpu = machine.get("gpu", "an unknown GPU")
    facts = [
        f"- {gpu}, driver {machine.get('driver') or '–'}, nvcc {machine.get('nvcc', '–')}, "
        f"{machine.get('host', '')}",
        f"- commit {machine.get('commit', 'unknown')}, {machine.get('date', '')}",
        "- `bench/run-cuda.sh`",
    ]
    parts = [f"# The CUDA backend on {gpu}", "\n".join(facts)]
    if machine.get("emulated"):
        parts.append("**An emulator was measured: no figure says anything about speed.**")
    parts += limits_section(results)
    parts += steering_section(results)
    parts += capture_section(results)
    parts += comparison_section(
        results, "formats", "Formats of weights", "Medians of the three by turns; KV cache in bf16."
    )
    parts += comparison_section(
        results,
        "graphs",
        "CUDA graphs",
        "The default beside `LLAMA_STEER_CUDA_GRAPHS=off`, by turns.",
    )
    parts += comparison_section(
        results,
        "overlap",
        "Kernels that overlap",
        "Programmatic dependent launch, the default where the GPU can, beside `LLAMA_STEER_CUDA_PDL=off`, by turns.",
    )
    parts += comparison_section(
        results,
        "chunks",
        "Rows of a step",
        "A prompt by the most rows that a step takes (`--batch-tokens`, `--max-batch-tokens` of the service).",
    )
    parts += memory_section(results)
    parts += attention_section(results)
    parts += tests_section(results)
    parts += kernels_section(results)
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    if not args.folder.is_dir():
        sys.exit(f"no such folder: {args.folder}")
    results = Results(args.folder)
    slug = re.sub(r"[^a-z0-9]+", "-", results.machine.get("gpu", "unknown").lower()).strip("-")
    target = args.report or ROOT / "bench" / "results" / f"cuda-{slug}.md"
    target.write_text(page(results), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
