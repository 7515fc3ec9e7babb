"""What the recordings share: the subject, one run of it, and the golden file."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent


@dataclasses.dataclass
class Subject:
    """A checkpoint, computed in float32, and what is asked of it."""

    folder: Path
    spec: dict
    cases: dict

    def __post_init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        # A fixed number of tokens: no token ends the answer.
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = self.tokenizer.pad_token_id
        config = self.model.config
        self.blocks, self.width, self.vocab_size = config.num_hidden_layers, config.hidden_size, config.vocab_size
        self.pairs = [tuple(pair) for pair in self.cases["pairs"]]
        self.prompt_ids = self.tokenizer(self.cases["prompt"])["input_ids"]

    def weights_digest(self) -> str:
        return hashlib.sha256((self.folder / "model.safetensors").read_bytes()).hexdigest()


def top_rows(subject: Subject) -> int:
    return subject.cases["top"]


class Golden:
    """Tensors by name; every value is float32, token ids too (exact below 2^24)."""

    def __init__(self, prompt_rows: int):
        self.prompt_rows = prompt_rows
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, name: str, prompt: np.ndarray, tokens: list[int], steps: np.ndarray, top: int) -> None:
        """`prompt` and `steps`: logits [rows, V]; steps[i] is the row that tokens[i] was drawn from.

        <name>.tokens [n], <name>.margins [n] (lead of the best logit), and the most likely tokens of
        the last prompt rows and of every step but the first (the last prompt row is that):
        <name>.ids [rows, top], <name>.logprobs [rows, top].
        """
        rows = np.concatenate([prompt[-self.prompt_rows :], steps[1:]]).astype(np.float64)
        highest = rows.max(-1, keepdims=True)
        logprobs = rows - highest - np.log(np.exp(rows - highest).sum(-1, keepdims=True))
        ids = np.argsort(-logprobs, axis=-1, kind="stable")[:, :top]
        best = -np.sort(-steps, axis=-1)
        self.tensors[f"{name}.tokens"] = np.array(tokens)
        self.tensors[f"{name}.margins"] = best[:, 0] - best[:, 1]
        self.tensors[f"{name}.ids"] = ids
        self.tensors[f"{name}.logprobs"] = np.take_along_axis(logprobs, ids, -1)

    def save(self, file: Path, metadata: dict) -> None:
        tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in self.tensors.items()}
        save_file(tensors, file, {"recorded": json.dumps(metadata)})


@torch.no_grad()
def record_run(subject: Subject, golden: Golden, name: str, model) -> None:
    """One forward pass over the prompt, and greedy generation with a KV cache."""
    ids = torch.tensor([subject.prompt_ids])
    mask = torch.ones_like(ids)
    prompt = model(input_ids=ids, attention_mask=mask).logits[0].float().numpy()
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=subject.cases["newTokens"],
        do_sample=False,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[0, ids.shape[1] :].tolist()
    steps = torch.cat(out.logits).float().numpy()
    golden.add(name, prompt, tokens, steps, top_rows(subject))
