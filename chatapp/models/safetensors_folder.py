"""Whether a folder holds a whole causal language model, and what its configuration tells.

Only safetensors weights are loaded: a pickle (.bin, .pt) can run code when it is opened, also with
torch's `weights_only` (CVE-2025-32434, CVE-2026-24747). Headers alone are read, never the weights.

The format: safetensors' README, "Format": eight bytes of length, a JSON header, the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatapp.models.errors import DamagedModel, RefusedModel, UnknownModel

MAX_HEADER_BYTES = 25_000_000
"""What huggingface_hub accepts too; the largest models in use need a few million."""
MAX_JSON_BYTES = 64 * 2**20

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2,
    "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element; types packed below a byte are left to safetensors itself."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "WithLMHead")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFacts:
    """What the files of a model folder tell. Texts are as the files have them: not sanitised."""

    architecture: str
    weight_format: str
    context_length: int
    """0 where the configuration does not say."""
    vocab_size: int
    layers: int
    hidden_size: int
    parameters: int
    """Elements of all tensors; where weights are packed, fewer than the model counts."""
    tensors: int
    has_chat_template: bool
    size: int
    """Of the weights, in bytes."""


def check_folder(folder: Path) -> FolderFacts:
    """Hold the headers of a folder's weights against the sizes of its files.

    Raises:
        UnknownModel: the folder holds no model.
        DamagedModel: a file is cut off, missing or contradicts itself.
        RefusedModel: there are only pickled weights, or it is no causal language model.
    """
    try:
        config = _config(folder)
        weights = weight_files(folder)
        if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
            raise DamagedModel(
                f"{folder} has no tokenizer (tokenizer.json); fetch or copy it whole"
            )
        tensors = [tensor for file in weights for tensor in _tensors(file)]
        size = sum(file.stat().st_size for file in weights)
        templates = [folder / "chat_template.jinja", folder / "chat_template.json"]
        has_template = any(map(Path.is_file, templates)) or "chat_template" in _json(
            folder / "tokenizer_config.json", missing={}
        )
    except OSError as error:
        where = error.filename or folder
        raise DamagedModel(f"cannot read {where}: {error.strerror or error}") from None
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else config
    return FolderFacts(
        architecture=_architecture(config),
        weight_format=_weight_format(config, tensors),
        context_length=_number(inner, "max_position_embeddings", "n_positions", "n_ctx"),
        vocab_size=_number(inner, "vocab_size"),
        layers=_number(inner, "num_hidden_layers", "n_layer"),
        hidden_size=_number(inner, "hidden_size", "n_embd"),
        parameters=sum(tensor.elements for tensor in tensors),
        tensors=len(tensors),
        has_chat_template=has_template,
        size=size,
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; an index names the shards, and all are there.

    Raises:
        UnknownModel: there are no weights.
        DamagedModel: a shard is missing, or the index is damaged.
        RefusedModel: the weights are pickled.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        names = shard_names(_json(folder / INDEX), folder / INDEX)
        for name in names:
            if not (folder / name).is_file():
                raise DamagedModel(f"{folder} lacks {name}; fetch or copy it whole")
        return [folder / name for name in names]
    if found := sorted(folder.glob("*.safetensors")):
        return found
    for pattern in _PICKLES:
        if pickled := next(folder.glob(pattern), None):
            raise RefusedModel(
                f"{folder} has only pickled weights ({pickled.name}), which can run code when "
                "opened; use a model with safetensors or GGUF weights"
            )
    raise UnknownModel(f"{folder} holds no model: no *.safetensors and no *.gguf file in it")


def shard_names(index: dict[str, Any], where: Path | str) -> list[str]:
    """The files an index names, each a plain name within its own folder.

    Raises:
        DamagedModel: the index has another form, or names a file elsewhere.
    """
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise DamagedModel(f"{where} is damaged: it has no weight_map; fetch or copy it again")
    names = sorted({name if isinstance(name, str) else "" for name in shards.values()})
    for name in names:
        if not name.endswith(".safetensors") or "/" in name or "\\" in name or name[0] == ".":
            raise DamagedModel(f"{where} is damaged: it names the file {name[:80]!r}")
    return names


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    elements: int
    size: int


def _config(folder: Path) -> dict[str, Any]:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise RefusedModel(f"{folder} is an adapter (LoRA), not a whole model; merge it first")
    if not (folder / "config.json").is_file():
        weight_files(folder)  # says so when the weights are missing or pickled as well
        raise UnknownModel(f"{folder} holds no model: it has no config.json")
    config = _json(folder / "config.json")
    classes = config.get("architectures")
    if isinstance(classes, list) and classes:
        names = [name for name in classes if isinstance(name, str)]
        if names and not any(name.endswith(_CAUSAL) for name in names):
            raise RefusedModel(f"{folder} is no causal language model ({names[0][:80]!r})")
    return config


def _json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """A file's JSON object. Raises DamagedModel, OSError."""
    if missing is not None and not path.is_file():
        return missing
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DamagedModel(f"{path} is damaged: too large for a configuration")
    return parse_object(path.read_bytes(), path)


def parse_object(data: bytes, where: Path | str) -> dict[str, Any]:
    """Bytes that must be one JSON object. Raises DamagedModel."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # bad UTF-8 and numbers too long are ValueErrors too
        raise DamagedModel(f"{where} is damaged: not valid JSON; fetch or copy it again") from None
    if not isinstance(value, dict):
        raise DamagedModel(f"{where} is damaged: not a JSON object; fetch or copy it again")
    return value


def _tensors(path: Path) -> list[_Tensor]:
    """The tensors of one safetensors file. Raises DamagedModel, OSError."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise DamagedModel(f"{path} is cut off: it has {size} bytes; fetch or copy it again")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES:
            raise DamagedModel(f"{path} is no safetensors file; fetch or copy it again")
        if 8 + length > size:
            raise _cut_off(path, 8 + length, size)
        header = parse_object(stream.read(length), path)
    header.pop("__metadata__", None)
    room = size - 8 - length
    tensors = []
    spans = []
    for name, entry in header.items():
        begin, end, tensor = _tensor(path, name, entry)
        spans.append((begin, end))
        tensors.append(tensor)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise DamagedModel(f"{path} is damaged: its tensors overlap or leave gaps")
        reached = end
    if reached > room:
        raise _cut_off(path, 8 + length + reached, size)
    if reached < room:
        raise DamagedModel(f"{path} is damaged: {room - reached:,} bytes too long")
    return tensors


def _tensor(path: Path, name: str, entry: Any) -> tuple[int, int, _Tensor]:
    """Where a tensor's data begins and ends, and what it is. Raises DamagedModel."""
    wrong = DamagedModel(f"{path} is damaged: the tensor {name[:80]!r} is described wrongly")
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise wrong
    elements = 1
    for extent in shape:
        if not isinstance(extent, int) or isinstance(extent, bool) or not 0 <= extent < 2**63:
            raise wrong
        elements *= extent
        if elements >= 2**63:
            raise wrong
    if not 0 <= begin <= end < 2**63:
        raise wrong
    if end - begin != elements * _ITEM_BYTES.get(dtype, 0) and dtype in _ITEM_BYTES:
        raise wrong
    return begin, end, _Tensor(dtype, elements, end - begin)


def _cut_off(path: Path, expected: int, size: int) -> DamagedModel:
    return DamagedModel(
        f"{path} is cut off: it should have {expected:,} bytes and has {size:,}; "
        "fetch or copy it again"
    )


def _architecture(config: dict[str, Any]) -> str:
    value = config.get("model_type")
    return value if isinstance(value, str) else ""


def _weight_format(config: dict[str, Any], tensors: Iterable[_Tensor]) -> str:
    """How the weights are stored: a quantization's name, else the type most bytes are of."""
    match config.get("quantization_config"):
        case {"quant_method": str(method), "bits": int(bits)}:
            return f"{method.upper()} {bits}-bit"
        case {"quant_method": str(method)}:
            return method.upper()
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    return max(sizes, key=sizes.__getitem__) if sizes else ""


def _number(config: dict[str, Any], *keys: str) -> int:
    """The first of those keys that holds a whole number; 0 when none does."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0
