"""Records what Hugging Face transformers computes (float32) for the models of cases.json.

    python tests/parity/record_goldens.py        # needs torch, transformers, safetensors, numpy

Writes goldens/<model>.safetensors:
    residual.<block>            [rows, d]  residual stream after the block (-1: the embedding)
    attn_out.<block>, mlp_out.<block>  [rows, d]
    final_norm                  [rows, d]
    logprobs                    [rows, V]  log-softmax of the logits
    logprobs.<steering>         [rows, V]
    residual_last.<steering>    [rows, d]  after the last block
    greedy, greedy.<steering>   [tokens]   arg max, fed back
    greedy_margin, ...          [tokens]   its lead over the second, in logits
`rows` are the prompt's positions from `recordFrom` on.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from synthetic import prompt, steering_row, tensor
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
OPEN_END = 2**31 - 1


def make_model(seed: int, spec: dict) -> LlamaForCausalLM:
    rope = {"rope_type": "default", **(spec["rope"] or {}), "rope_theta": spec["ropeTheta"]}
    config = LlamaConfig(
        hidden_size=spec["hiddenSize"],
        intermediate_size=spec["intermediateSize"],
        num_hidden_layers=spec["layers"],
        num_attention_heads=spec["queryHeads"],
        num_key_value_heads=spec["kvHeads"],
        head_dim=spec["headSize"],
        vocab_size=spec["vocabSize"],
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_parameters=rope,
        tie_word_embeddings=spec["tied"],
        attention_bias=spec["attentionBias"],
        mlp_bias=spec["mlpBias"],
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).to(torch.float32).eval()
    state = model.state_dict()
    for name, value in state.items():
        # A tied head is the embedding, under its second name.
        source = "model.embed_tokens.weight" if spec["tied"] and name == "lm_head.weight" else name
        made = tensor(seed, f"{spec['name']}/{source}", tuple(value.shape), spec["dtype"])
        value.copy_(torch.from_numpy(made))
    return model


def resolve_layers(layers: str, count: int) -> list[int]:
    return {"first": [0], "last": [count - 1], "all": list(range(count))}[layers]


def steer(hidden: torch.Tensor, step: dict, row: torch.Tensor, first_position: int) -> torch.Tensor:
    """docs/steering.md, on `hidden` [tokens, d]."""
    unit = row / row.norm()
    component = (hidden @ unit)[:, None]
    c = step["coefficient"]
    match step["kind"]:
        case "add":
            changed = hidden + c * row
        case "project_out":
            changed = hidden - c * component * unit
        case "clamp":
            changed = hidden + c * (component.clamp(step["min"], step["max"]) - component) * unit
        case "scale_component":
            changed = hidden + (c - 1) * component * unit
        case kind:
            raise ValueError(kind)
    if step.get("preserveNorm", False):
        changed = changed * hidden.norm(dim=1, keepdim=True) / changed.norm(dim=1, keepdim=True)
    positions = torch.arange(first_position, first_position + len(hidden))[:, None]
    acts = (positions >= step.get("begin", 0)) & (positions < step.get("end", OPEN_END))
    return torch.where(acts, changed, hidden)


class Run:
    """One forward pass over whole sequences with hooks; nothing is cached."""

    def __init__(self, model: LlamaForCausalLM, seed: int, steps: list[dict]):
        self.model, self.steps, self.seed = model, steps, seed
        self.residual: dict[int, torch.Tensor] = {}
        self.attn_out: dict[int, torch.Tensor] = {}
        self.mlp_out: dict[int, torch.Tensor] = {}

    def forward(self, token_ids: list[int]) -> torch.Tensor:
        """Logits [tokens, V]."""
        handles = [self.model.model.embed_tokens.register_forward_hook(self._keep(self.residual, -1))]
        for index, block in enumerate(self.model.model.layers):
            handles.append(block.self_attn.register_forward_hook(self._keep(self.attn_out, index)))
            handles.append(block.mlp.register_forward_hook(self._keep(self.mlp_out, index)))
            handles.append(block.register_forward_hook(self._steer_block(index)))
        handles.append(self.model.model.norm.register_forward_hook(self._keep_norm))
        try:
            with torch.no_grad():
                return self.model(torch.tensor([token_ids]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()

    @staticmethod
    def _keep(where: dict[int, torch.Tensor], index: int):
        def hook(_module, _inputs, output):
            where[index] = (output[0] if isinstance(output, tuple) else output)[0].clone()

        return hook

    def _keep_norm(self, _module, _inputs, output):
        self.final_norm = output[0].clone()

    def _steer_block(self, index: int):
        def hook(_module, _inputs, output):
            hidden = (output[0] if isinstance(output, tuple) else output)[0]
            for step in self.steps:
                if index in resolve_layers(step["layers"], len(self.model.model.layers)):
                    row = steering_row(self.seed, step["vector"], index, hidden.shape[1])
                    hidden = steer(hidden, step, torch.from_numpy(row), 0)
            self.residual[index] = hidden.clone()
            return (hidden[None], *output[1:]) if isinstance(output, tuple) else hidden[None]

        return hook


def greedy(run: Run, token_ids: list[int], count: int) -> tuple[np.ndarray, np.ndarray]:
    tokens, margins = list(token_ids), []
    for _ in range(count):
        top = run.forward(tokens)[-1].topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        tokens.append(int(top.indices[0]))
    return np.array(tokens[len(token_ids) :], np.float32), np.array(margins, np.float32)


def record(cases: dict, spec: dict) -> dict[str, np.ndarray]:
    seed, count = cases["seed"], cases["greedyTokens"]
    model = make_model(seed, spec)
    token_ids = prompt(seed, spec)
    rows = slice(spec["recordFrom"], None)
    plain = Run(model, seed, [])
    out = {"logprobs": plain.forward(token_ids).double().log_softmax(-1)[rows].numpy()}
    for name, kept in (("residual", plain.residual), ("attn_out", plain.attn_out), ("mlp_out", plain.mlp_out)):
        for block, value in kept.items():
            out[f"{name}.{block}"] = value[rows].numpy()
    out["final_norm"] = plain.final_norm[rows].numpy()
    out["greedy"], out["greedy_margin"] = greedy(plain, token_ids, count)
    for steering in cases["steerings"]:
        name = steering["name"]
        run = Run(model, seed, steering["steps"])
        out[f"logprobs.{name}"] = run.forward(token_ids).double().log_softmax(-1)[rows].numpy()
        out[f"residual_last.{name}"] = run.residual[spec["layers"] - 1][rows].numpy()
        out[f"greedy.{name}"], out[f"greedy_margin.{name}"] = greedy(run, token_ids, count)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in out.items()}


def main() -> None:
    torch.manual_seed(0)
    cases = json.loads((HERE / "cases.json").read_text())
    for spec in cases["models"]:
        values = record(cases, spec)
        file = HERE / "goldens" / f"{spec['name']}.safetensors"
        save_file(values, file)
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
