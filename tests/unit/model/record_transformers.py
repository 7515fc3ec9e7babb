"""Makes the small tokenizers of the tests and records what transformers does with them and with the
chat templates. Run it only to change the fixtures on purpose:

    pip install transformers==5.* jinja2 && python tests/unit/model/record_transformers.py
"""

import json
import pathlib

import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE / "fixtures"

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "Once upon a time there was a small model that said what it was told to say.",
    "Größe, café, naïve, 中文字符, 日本語, emoji 😀😃👩‍👩‍👧 and ❤️ too.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3\n",
    "Numbers 1 12 123 1234 12345; it's, they're, we'll; A.B.C; http://example.org/?q=1&r=2",
] * 4

TEXTS = [
    "",
    " ",
    "Hello world",
    " leading and trailing ",
    "two  spaces\tand\ttabs\n\nnew lines\r\n",
    "Größe café naïve",
    "中文 日本語 한국어",
    "😀👩‍👩‍👧❤️🏳️‍🌈",
    "it's 12345 o'clock",
    "<s>a</s>",
    "<|begin_of_text|>a<|eot_id|>",
    "\u0000\u0001\u007f\u0080\ufeff\ufffd",
    "e\u0301 \u00e9 \ufb01 \u200b\u00a0x",
    "\U0010ffff\U00010348",
    "▁a ▁ ▁▁",
]


def byte_level() -> Tokenizer:
    """Llama 3: byte-level BPE, BOS by a template, a vocabulary with special tokens at its end."""
    tokenizer = Tokenizer(models.BPE())
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer.add_tokens([AddedToken("<note>", special=False, normalized=False)])
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Llama 2: BPE over characters with ▁ for spaces and byte pieces for the rest."""
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ascii_only = ["".join(char for char in text if ord(char) < 0x250) for text in CORPUS]
    trained.train_from_iterator(
        ascii_only, trainers.BpeTrainer(vocab_size=240, special_tokens=["<unk>"], show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    learned = [piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if piece != "<unk>"]
    vocab = {piece: index for index, piece in enumerate(pieces + learned)}
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ["<unk>", "<s>", "</s>"]]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def metaspace() -> Tokenizer:
    """The newer way to say the same: no normaliser, a Metaspace decoder, no bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def record_tokenizer(name: str, tokenizer: Tokenizer) -> dict:
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    encoded = []
    for text in TEXTS:
        ids = fast(text)["input_ids"]
        encoded.append(
            {
                "text": text,
                "ids": ids,
                "plain_ids": fast(text, add_special_tokens=False)["input_ids"],
                "decoded": fast.decode(ids),
                "decoded_plain": fast.decode(ids, skip_special_tokens=True),
            }
        )
    return {"name": name, "vocab_size": tokenizer.get_vocab_size(), "encoded": encoded}


CHATS = {
    "one question": [("user", "Hi")],
    "with instructions": [("system", "Be brief."), ("user", "Hi")],
    "three turns": [("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")],
    "instructions and an answer": [("system", " s\n"), ("user", "q"), ("assistant", "a")],
    "spaces around": [("user", "  \n Hi there \t\n"), ("assistant", " ok "), ("user", "\n")],
    "lines, quotes and braces": [("user", "a\n\n{{ b }} {% c %}\n'd' \"e\" \\n {# f #}")],
    "other scripts": [("user", "Größe 中文 😀 e\u0301"), ("assistant", "❤️"), ("user", "שלום")],
    "empty texts": [("user", ""), ("assistant", ""), ("user", "")],
    "two questions in a row": [("user", "a"), ("user", "b")],
    "answer first": [("assistant", "a"), ("user", "b")],
    "a late instruction": [("user", "a"), ("system", "b"), ("user", "c")],
    "a tool": [("user", "a"), ("tool", "b")],
    "instructions only": [("system", "Be brief.")],
}

TOKENS = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama2": ("<s>", "</s>"),
    "zephyr": ("<s>", "</s>"),
    "chatml": (None, "<|im_end|>"),
}


def record_chats() -> list[dict]:
    records = []
    for template, (bos, eos) in TOKENS.items():
        source = (HERE / "templates" / f"{template}.jinja").read_text()
        names = {"eos_token": eos} | ({"bos_token": bos} if bos else {})
        fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **names)
        for title, turns in CHATS.items():
            messages = [{"role": role, "content": content} for role, content in turns]
            for add_generation_prompt in (True, False):
                for date in (None, "24 Nov 2026"):
                    extra = {"date_string": date} if date else {}
                    try:
                        text = fast.apply_chat_template(
                            messages,
                            chat_template=source,
                            tokenize=False,
                            add_generation_prompt=add_generation_prompt,
                            **extra,
                        )
                    except Exception as error:  # the template's raise_exception
                        assert type(error).__name__ == "TemplateError", error
                        text = None
                    records.append(
                        {
                            "title": title,
                            "template": template,
                            "tokens": names,
                            "messages": messages,
                            "add_generation_prompt": add_generation_prompt,
                            "date": date,
                            "text": text,
                        }
                    )
    return records


def main() -> None:
    makers = {"byte-level": byte_level, "sentencepiece": sentencepiece, "metaspace": metaspace}
    recorded = {
        "transformers": transformers.__version__,
        "tokenizers": [record_tokenizer(name, make()) for name, make in makers.items()],
        "chats": record_chats(),
    }
    text = json.dumps(recorded, ensure_ascii=True, separators=(",", ":"))
    (FIXTURES / "recorded.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
