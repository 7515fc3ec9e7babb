"""What llama.cpp computes under a control vector: the library inside xllamacpp, through its C interface.

Two structures cross by value. Their fields up to the ones that are changed here are declared, the
rest is room; the defaults that the library returns are checked, so that another layout is noticed.
"""

import ctypes
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from witness import Golden, Subject, top_rows

GGML_TYPE_F32 = 0
FLASH_ATTENTION_OFF = 0
# Of the integers, in order: sizes and counts, threads, kinds (-1 is "as the model says"), types.
CONTEXT_DEFAULTS = [512, 2048, 512, 1, 0, 0, 1, 4, 4, 0, -1, -1, -1, -1, 0, 1, 1]


class ModelParams(ctypes.Structure):
    _fields_ = [("all", ctypes.c_uint8 * 512)]


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("ctx_type", ctypes.c_int32),
        ("rope_scaling_type", ctypes.c_int32),
        ("pooling_type", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("flash_attn_type", ctypes.c_int32),
        ("rope", ctypes.c_float * 6),
        ("yarn_orig_ctx", ctypes.c_uint32),
        ("defrag_thold", ctypes.c_float),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("rest", ctypes.c_uint8 * 512),
    ]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
SILENT = LogCallback(lambda _level, _text, _data: None)


def load_library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("*.so"))))
    signatures = {
        "llama_model_default_params": (ModelParams, []),
        "llama_context_default_params": (ContextParams, []),
        "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, ModelParams]),
        "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, ContextParams]),
        "llama_batch_init": (Batch, [ctypes.c_int32] * 3),
        "llama_decode": (ctypes.c_int32, [ctypes.c_void_p, Batch]),
        "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
        "llama_set_adapter_cvec": (
            ctypes.c_int32,
            [ctypes.c_void_p, ctypes.POINTER(ctypes.c_float), ctypes.c_size_t] + [ctypes.c_int32] * 3,
        ),
        "llama_log_set": (None, [LogCallback, ctypes.c_void_p]),
        "llama_free": (None, [ctypes.c_void_p]),
        "llama_model_free": (None, [ctypes.c_void_p]),
        "llama_batch_free": (None, [Batch]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(SILENT, None)
    return library


def context_params(library: ctypes.CDLL) -> ContextParams:
    params = library.llama_context_default_params()
    names = [name for name, kind in ContextParams._fields_ if kind in (ctypes.c_uint32, ctypes.c_int32)]
    known = [getattr(params, name) for name in names]
    if known != CONTEXT_DEFAULTS:
        raise RuntimeError(f"llama_context_params has another layout: {dict(zip(names, known))}")
    params.flash_attn_type = FLASH_ATTENTION_OFF
    params.type_k = params.type_v = GGML_TYPE_F32
    return params


def control_buffer(file: Path, strength: float, subject: Subject) -> np.ndarray:
    """direction.N at row N - 1, as llama.cpp's own loader lays it out."""
    rows = np.zeros((subject.blocks, subject.width), np.float32)
    for tensor in gguf.GGUFReader(file).tensors:
        rows[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
    return rows * np.float32(strength)


class Context:
    """One sequence, decoded from position 0 on."""

    def __init__(self, library: ctypes.CDLL, model: int, vocab_size: int):
        self.library, self.vocab_size, self.position = library, vocab_size, 0
        self.handle = library.llama_init_from_model(model, context_params(library))
        if not self.handle:
            raise RuntimeError("llama_init_from_model failed")

    def decode(self, tokens: list[int]) -> np.ndarray:
        """Logits [tokens, V]."""
        batch = self.library.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, self.position + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        status = self.library.llama_decode(self.handle, batch)
        self.library.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        self.position += len(tokens)
        rows = [self.library.llama_get_logits_ith(self.handle, i) for i in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(row, (self.vocab_size,)).copy() for row in rows])


def apply(subject: Subject, golden: Golden, model_gguf: Path, vector_gguf: Path) -> None:
    library = load_library()
    model = library.llama_model_load_from_file(str(model_gguf).encode(), library.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {model_gguf}")
    for name, strength in {"plain": None, "control_vector": subject.spec["unit"]}.items():
        context = Context(library, model, subject.vocab_size)
        if strength is not None:
            buffer = control_buffer(vector_gguf, strength, subject)
            floats = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            # Blocks 1 to n, the defaults of its command line.
            if library.llama_set_adapter_cvec(context.handle, floats, buffer.size, subject.width, 1, subject.blocks):
                raise RuntimeError("llama_set_adapter_cvec failed")
        prompt = context.decode(subject.prompt_ids)
        steps, tokens = [prompt[-1]], []
        for _ in range(subject.cases["newTokens"]):
            tokens.append(int(steps[-1].argmax()))
            steps.append(context.decode(tokens[-1:])[0])
        golden.add(f"llama_cpp.{name}", prompt, tokens, np.stack(steps[:-1]), top_rows(subject))
        library.llama_free(context.handle)
    library.llama_model_free(model)
