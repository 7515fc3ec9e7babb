#!/usr/bin/env python3
"""Drives bench_engine, and reference.py beside it: orders by turns, in rounds.

  engine.py GROUP --bench build/cuda/bench_engine --out FILE [--device cuda] [--shape llama-3.1-8b]
            [--python python3] [--rounds N] [--seconds N]

What is compared is open at the same time and takes turns at every order; who begins changes from round
to round. After --seconds no further round begins. Writes JSON after every round, so that a run that is
cut short leaves what it has.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def decode(streams, context, tokens, steering="none"):
    return (
        f"decode streams={streams} context={context} tokens={tokens} "
        f"steering={steering} prompts=same"
    )


def sizes(shape):
    """Orders by name; the small ones are for an emulator."""
    if shape == "tiny":
        return {
            "decode": [decode(1, 20, 4), decode(3, 40, 4)],
            "prefill": ["prefill tokens=40", "prefill tokens=70"],
            "capture": 40,
            "steered": [(1, 20, 4), (4, 40, 4)],
            "kv_mib": 16,
            "chunks": (32, 64),
        }
    return {
        "decode": [decode(1, 128, 64), decode(8, 128, 64), decode(64, 1024, 64)],
        "prefill": ["prefill tokens=2048", "prefill tokens=8192"],
        "capture": 512,
        "steered": [(1, 128, 64), (64, 1024, 64)],
        "kv_mib": 9728,  # 64 streams of 1,088 tokens, and a prompt beside
        "chunks": (512, 2048, 8192),
    }


def ours(name, *options, **environment):
    return {"name": name, "options": list(options), "environment": environment}


REFERENCE = {"name": "pytorch"}
NO_GRAPHS = {"LLAMA_STEER_CUDA_GRAPHS": "off"}
NOT_AHEAD = {"LLAMA_STEER_CUDA_ASYNC_STEPS": "off"}
NO_OVERLAP = {"LLAMA_STEER_CUDA_PDL": "off"}


def groups(shape):
    """Group -> contestants, orders, rounds."""
    size = sizes(shape)
    both = size["decode"] + size["prefill"]
    long_prompts = str(size["chunks"][1])
    steerings = ("none", "one-layer", "all-layers", "distinct")
    captured = size["capture"]
    return {
        "forward": (
            [ours("ours", "--batch-tokens", long_prompts), REFERENCE],
            both,
            7,
        ),
        "graphs": ([ours("graphs"), ours("no graphs", **NO_GRAPHS)], size["decode"], 7),
        "overlap": (
            [ours("overlap"), ours("no overlap", **NO_OVERLAP)],
            size["decode"],
            15,
        ),
        "ahead": (
            [ours("ahead"), ours("one after the other", **NOT_AHEAD)],
            size["decode"],
            15,
        ),
        "formats": (
            [ours("bf16"), ours("fp8", "--format", "fp8"), ours("int8", "--format", "int8")],
            both,
            5,
        ),
        "steering": (
            [ours("ours")],
            [decode(*batch, s) for batch in size["steered"] for s in steerings],
            25,
        ),
        "capture": (
            [ours("ours"), ours("long chunks", "--batch-tokens", long_prompts)],
            [f"prefill tokens={captured}"]
            + [f"capture tokens={captured} dtype={dtype}" for dtype in ("f32", "bf16")],
            11,
        ),
        "chunks": (
            [ours(f"{rows} rows", "--batch-tokens", str(rows)) for rows in size["chunks"]],
            size["prefill"],
            5,
        ),
    }


class Contestant:
    """A process that answers lines with lines of JSON."""

    def __init__(self, args, spec, kv_mib):
        self.name = spec["name"]
        if spec is REFERENCE:
            command = [args.python, str(HERE / "reference.py"), "orders"]
            command += ["--device", args.reference_device]
            command += ["--shape", args.shape]
            environment = {}
        else:
            command = [args.bench, "--orders", "--random", "--prefix-cache"]
            command += ["--device", args.device, "--shape", args.shape]
            command += ["--kv-mib", str(kv_mib), *spec["options"]]
            environment = spec["environment"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.greeting = None

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def order(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def applies(contestant, line):
    """The reference neither steers nor captures."""
    return contestant.name != REFERENCE["name"] or line.split()[0] in ("decode", "prefill")


def play(round_number, contestants, orders, samples):
    """Every order once; in odd rounds backwards, so that no order always has the same before it."""
    lines = orders if round_number % 2 == 0 else orders[::-1]
    for line in lines:
        for i in range(len(contestants)):
            contestant = contestants[(round_number + i) % len(contestants)]
            if not applies(contestant, line):
                continue
            answer = contestant.order(line)
            if "error" in answer:
                print(f"  {contestant.name}, {line}: {answer['error']}", file=sys.stderr)
            samples.append({"round": round_number, "contestant": contestant.name, **answer})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("group", choices=groups("tiny"))
    parser.add_argument("--bench", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=("llama-3.1-8b", "tiny"))
    parser.add_argument("--python", default=sys.executable, help="one that has PyTorch")
    parser.add_argument("--reference-device", default="cuda")
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=480.0)
    args = parser.parse_args()
    begin = time.monotonic()
    specs, orders, rounds = groups(args.shape)[args.group]
    if args.no_reference:
        specs = [spec for spec in specs if spec is not REFERENCE]
    kv_mib = sizes(args.shape)["kv_mib"]
    contestants = [Contestant(args, spec, kv_mib) for spec in specs]
    for contestant in contestants:
        contestant.greeting = contestant.read()
    loaded_s = time.monotonic() - begin
    play(0, contestants, orders, [])  # compiles, records graphs, fills the prefix cache
    play(1, contestants, orders, [])
    samples = []
    for number in range(args.rounds or rounds):
        if number > 0 and time.monotonic() - begin > args.seconds:
            print(f"out of time after {number} rounds", file=sys.stderr)
            break
        play(number, contestants, orders, samples)
        result = {
            "group": args.group,
            "shape": args.shape,
            "rounds": number + 1,
            "load_seconds": round(loaded_s, 1),
            "contestants": {c.name: c.greeting for c in contestants},
            "samples": samples,
        }
        part = Path(args.out + ".part")
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace(args.out)
    for contestant in contestants:
        contestant.close()
    failed = sum("error" in sample for sample in samples)
    print(f"{args.group}: {len(samples) - failed} figures, {failed} failures")
    return 1 if failed == len(samples) else 0


if __name__ == "__main__":
    sys.exit(main())
