"""Small whole models, made on the spot: a GGUF file, a folder, a wheel that carries a file."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
from safetensors.numpy import save


@cache
def gguf_bytes(seed: int = 0, rows: int = 64) -> bytes:
    """A GGUF file as the gguf package writes it: values of many types, three tensors."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name("Tiny")
        writer.add_license("apache-2.0")
        writer.add_context_length(128)
        writer.add_block_count(1)
        writer.add_embedding_length(32)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
        writer.add_token_list([f"token{number}" for number in range(rows)])
        writer.add_token_scores([0.5] * rows)
        writer.add_chat_template("{{ messages }}")
        writer.add_bool("llama.flag", True)
        numbers = np.random.default_rng(seed)
        for name in ("token_embd.weight", "output.weight"):
            values = numbers.standard_normal((rows, 32)).astype(np.float32)
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "vocab_size": 16,
    "max_position_embeddings": 128,
}


def folder_files(seed: int = 0, rows: int = 16) -> dict[str, bytes]:
    """The files of a model repository, with one that must never be fetched."""
    numbers = np.random.default_rng(seed)
    weights = {"embed": numbers.standard_normal((rows, 8)).astype(np.float32)}
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b'{"model": {}}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "model.safetensors": save(weights),
        "pytorch_model.bin": b"\x80\x04never",
        "modeling_tiny.py": b"raise SystemExit",
        "onnx/model.onnx": b"not wanted",
        "README.md": b"# Tiny",
    }


def write_folder(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    """A model folder on the disk."""
    for name, data in (files or folder_files()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def sharded(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same repository with its weights in two shards and an index."""
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"metadata": {}, "weight_map": {"one": names[0], "two": names[1]}}
    rest = {name: data for name, data in files.items() if name != "model.safetensors"}
    return rest | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        names[0]: save({"one": np.ones((4, 8), np.float32)}),
        names[1]: save({"two": np.zeros((4, 8), np.float32)}),
    }


def wheel_bytes(member: str, content: bytes, package: str = "tiny_model") -> bytes:
    """A wheel of version 1.0 that carries one file."""
    info = f"{package}-1.0.dist-info"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return stream.getvalue()
