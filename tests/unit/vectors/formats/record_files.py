"""Writes small vector files with the libraries that others use, for recorded.test.ts.

    python -m pip install numpy safetensors gguf
    python record_files.py > recorded.json

Rows 1 and 3 of width 5; every value is a float16, so that no format rounds.
"""

import base64
import io
import json
import os
import pickle
import sys
import tempfile
import zipfile

import gguf
import numpy as np
import safetensors.numpy

ROWS = {1: np.array([0.5, -1.25, 3.0, 0.0, 1024.0]), 3: np.array([-0.0, 2.0, 6.103515625e-05, 7.5, -8.0])}
F32 = {number: row.astype(np.float32) for number, row in ROWS.items()}


def saved(write):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        write(path)
        names = os.listdir(folder)
        with open(os.path.join(folder, names[0]), "rb") as file:
            return file.read()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def control_vector(path, count, rows=F32, extra=lambda writer: None, arch="controlvector"):
    writer = gguf.GGUFWriter(path, arch)
    writer.add_string("controlvector.model_hint", "llama")
    count(writer)
    extra(writer)
    for number, row in rows.items():
        writer.add_tensor(f"direction.{number}", row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def easysteer(writer):
    writer.add_string("controlvector.method", "diffmean")
    writer.add_bool("controlvector.normalize", True)
    writer.add_uint32("controlvector.n_positive", 8)
    writer.add_array("controlvector.tags", ["a", "b"])
    writer.add_array("controlvector.scales", [0.5, 1.5])


def torch_like():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("vector/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("vector/data/0", b"\0" * 20)
    return buffer.getvalue()


u32 = lambda writer: writer.add_uint32("controlvector.layer_count", len(F32))
i32 = lambda writer: writer.add_int32("controlvector.layer_count", len(F32))
stacked = np.stack(list(F32.values()))
good = {
    "repeng.gguf": saved(lambda path: control_vector(path, u32)),
    "cvector-generator.gguf": saved(lambda path: control_vector(path, i32)),
    "easysteer.gguf": saved(lambda path: control_vector(path, u32, extra=easysteer)),
    "f4.npy": npy(stacked),
    "f8.npy": npy(np.stack(list(ROWS.values()))),
    "f2.npy": npy(stacked.astype(np.float16)),
    "fortran.npy": npy(np.asfortranarray(stacked)),
    "named.npz": saved(lambda path: np.savez(path, **{f"layer_{n}": r for n, r in F32.items()})),
    "numbers.npz": saved(lambda path: np.savez_compressed(path, **{str(n): r[None] for n, r in F32.items()})),
    "rows.safetensors": safetensors.numpy.save({f"layer.{n}": r for n, r in F32.items()}, {"format": "np"}),
    "f16.safetensors": safetensors.numpy.save({str(n): r.astype(np.float16) for n, r in F32.items()}),
    "cast.svec": json.dumps(
        {
            "model_type": "llama",
            "directions": {n: r.tolist() for n, r in F32.items()},
            "explained_variances": {n: 0.5 for n in F32},
        }
    ).encode(),
    "rows.json": json.dumps({f"layer.{n}": r.tolist() for n, r in F32.items()}).encode(),
}
bad = {
    "protocol-2.pkl": pickle.dumps({1: [0.5]}, protocol=2),
    "protocol-5.pkl": pickle.dumps({1: [0.5]}, protocol=5),
    "torch.pt": torch_like(),
    "object.npy": npy(np.array([{"a": 1}], dtype=object)),
    "big-endian.npy": npy(stacked.astype(">f4")),
    "integers.npy": npy(stacked.astype(np.int32)),
    "scalar.npy": npy(np.float32(1)),
    "cube.npy": npy(stacked[None]),
    "f16.gguf": saved(lambda path: control_vector(path, u32, {1: F32[1].astype(np.float16)})),
    "matrix.gguf": saved(lambda path: control_vector(path, u32, {1: stacked})),
    "other.gguf": saved(lambda path: control_vector(path, u32, arch="llama")),
    "nan.json": json.dumps({"1": [float("nan")] * 5}).encode(),
}
encode = lambda files: {name: base64.b64encode(content).decode() for name, content in files.items()}
versions = dict(numpy=np.__version__, safetensors=safetensors.__version__)
json.dump(dict(versions=versions, good=encode(good), bad=encode(bad)), sys.stdout, indent=2)
print()
