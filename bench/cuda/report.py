#!/usr/bin/env python3
"""Turns what bench/run-cuda.sh measured into a page: bench/results/cuda-<gpu>.md.

  report.py FOLDER [--report FILE]

What was not measured is said to be so. The standard library is enough.
"""

import argparse
import re
import sys
from pathlib import Path

import floors
from kernel_sections import attention_section, attention_tflops, kernels_section, tests_section
from measured import Group, Results, words_of
from shapes import SHAPES
from words import MISSING, batch_name, change, number, percent, table, verdict

ROOT = Path(__file__).resolve().parents[2]


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
    shape = SHAPES[(results.engine("forward") or {}).get("shape", "llama-3.1-8b")]
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
    shape = SHAPES[results.memory["shape"]]
    weights = results.memory["weight_bytes"] / 2**30
    return [
        "## Memory",
        f"Beside {weights:.1f} GiB of weights the engine made {blocks} KV blocks of what was free: {tokens} tokens, "
        f"{tokens * floors.token_bytes(shape) / 2**30:.1f} GiB.",
    ]


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
        "ahead",
        "Steps ahead",
        "The next step planned and begun while one runs, beside `LLAMA_STEER_CUDA_ASYNC_STEPS=off`, by turns.",
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
