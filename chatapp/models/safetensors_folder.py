"""Whether a folder holds a whole causal language model, and what its configuration tells.

Only safetensors weights are loaded: a pickle (.bin, .pt) can run code when it is opened, also with
torch's `weights_only` (CVE-2025-32434, CVE-2026-24747). Headers alone are read, never the weights,
by safetensors, which holds every shape and offset against the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chatapp.models.errors import DamagedModel, RefusedModel, UnknownModel
from chatapp.models.facts import FileFacts, kv_values, most_common

MAX_HEADER_BYTES = 25_000_000
"""What huggingface_hub accepts too; safetensors needs 1.2 GB for the largest that it allows."""
MAX_JSON_BYTES = 64 * 2**20

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "WithLMHead")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken")


def check_folder(folder: Path) -> FileFacts:
    """Hold the headers of a folder's weights against the sizes of its files.

    Raises:
        UnknownModel: the folder holds no model.
        DamagedModel: a file is cut off, missing or contradicts itself.
        RefusedModel: there are only pickled weights, or it is no causal language model.
    """
    try:
        config = _config(folder)
        weights = _weight_files(folder)
        if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
            raise DamagedModel(
                f"{folder} has no tokenizer (tokenizer.json); fetch or copy it whole"
            )
        tensors = [tensor for file in weights for tensor in _tensors(file)]
        size = sum(file.stat().st_size for file in weights)
        side = [folder / "chat_template.jinja", folder / "chat_template.json"]
        tokenizer = folder / "tokenizer_config.json"
        has_template = any(map(Path.is_file, side)) or (
            tokenizer.is_file() and "chat_template" in _json(tokenizer)
        )
    except OSError as error:
        where = error.filename or folder
        raise DamagedModel(f"cannot read {where}: {error.strerror or error}") from None
    text, architecture = config.get("text_config"), config.get("model_type")
    inner = text if isinstance(text, dict) else config
    layers = _number(inner, "num_hidden_layers", "n_layer")
    hidden_size = _number(inner, "hidden_size", "n_embd")
    heads, width = _number(inner, "num_attention_heads", "n_head"), _number(inner, "head_dim")
    kv_heads = _number(inner, "num_key_value_heads")
    return FileFacts(
        architecture=architecture if isinstance(architecture, str) else "",
        weight_format=_weight_format(config, tensors),
        context_length=_number(inner, "max_position_embeddings", "n_positions", "n_ctx"),
        vocab_size=_number(inner, "vocab_size"),
        layers=layers,
        hidden_size=hidden_size,
        kv_values=kv_values(layers, hidden_size, heads, kv_heads, width, width),
        parameters=sum(elements for _, elements in tensors),
        tensors=len(tensors),
        has_chat_template=has_template,
        size=size,
    )


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; an index names the shards, and all are there.

    Raises:
        UnknownModel: there are no weights.
        DamagedModel: a shard is missing, or the index is damaged.
        RefusedModel: the weights are pickled.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        where, shards = folder / INDEX, _json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise DamagedModel(f"{where} is damaged: it has no weight_map; fetch or copy it again")
        names = sorted({name if isinstance(name, str) else "" for name in shards.values()})
        for name in names:
            if not name.endswith(".safetensors") or "/" in name or "\\" in name or name[0] == ".":
                raise DamagedModel(f"{where} is damaged: it names the file {name[:80]!r}")
            if not (folder / name).is_file():
                raise DamagedModel(f"{folder} lacks {name}; fetch or copy it whole")
        return [folder / name for name in names]
    if found := sorted(folder.glob("*.safetensors")):
        return found
    for suffix in PICKLES:
        if pickled := next(folder.glob(f"*{suffix}"), None):
            raise RefusedModel(
                f"{folder} has only pickled weights ({pickled.name}), which can run code when "
                "opened; use a model with safetensors or GGUF weights"
            )
    raise UnknownModel(f"{folder} holds no model: no *.safetensors and no *.gguf file in it")


def _config(folder: Path) -> dict[str, Any]:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise RefusedModel(f"{folder} is an adapter (LoRA), not a whole model; merge it first")
    if not (folder / "config.json").is_file():
        _weight_files(folder)  # says so when the weights are missing or pickled as well
        raise UnknownModel(f"{folder} holds no model: it has no config.json")
    config = _json(folder / "config.json")
    classes = config.get("architectures")
    if isinstance(classes, list) and classes:
        names = [name for name in classes if isinstance(name, str)]
        if names and not any(name.endswith(_CAUSAL) for name in names):
            raise RefusedModel(f"{folder} is no causal language model ({names[0][:80]!r})")
    return config


def _json(path: Path) -> dict[str, Any]:
    """A file's JSON object. Raises DamagedModel, OSError."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DamagedModel(f"{path} is damaged: too large for a configuration")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # bad UTF-8 and numbers too long are ValueErrors too
        raise DamagedModel(f"{path} is damaged: not valid JSON; fetch or copy it again") from None
    if not isinstance(value, dict):
        raise DamagedModel(f"{path} is damaged: not a JSON object; fetch or copy it again")
    return value


def _tensors(path: Path) -> Iterator[tuple[str, int]]:
    """Type and number of elements of each tensor in a file.

    Raises:
        DamagedModel: safetensors finds that header and file don't fit together.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as stream:
        if int.from_bytes(stream.read(8), "little") > MAX_HEADER_BYTES:
            raise DamagedModel(f"{path} is no safetensors file; fetch or copy it again")
    try:
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                part = file.get_slice(name)
                yield part.get_dtype(), math.prod(part.get_shape())
    except SafetensorError as error:
        reason = " ".join(str(error).rpartition("header: ")[2].split())[:200]
        raise DamagedModel(
            f"{path} is cut off or damaged ({reason}); fetch or copy it again"
        ) from None


def _weight_format(config: dict[str, Any], tensors: Iterable[tuple[str, int]]) -> str:
    """How the weights are stored: a quantization's name, else the type most elements are of."""
    match config.get("quantization_config"):
        case {"quant_method": str(method), "bits": int(bits)}:
            return f"{method.upper()} {bits}-bit"
        case {"quant_method": str(method)}:
            return method.upper()
    return most_common(tensors)


def _number(config: dict[str, Any], *keys: str) -> int:
    """The first of those keys that holds a whole number; 0 when none does."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0
