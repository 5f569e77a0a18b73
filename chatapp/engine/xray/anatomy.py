"""What a model is made of, read from its file: nothing is loaded for it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import ModelFacts, ModelSource
from chatapp.chat.xray import Anatomy, ModelPart
from chatapp.settings.machine import memory_speed

Name = Literal["embedding", "attention", "mlp", "norm", "head", "other"]
_ORDER: tuple[Name, ...] = ("embedding", "attention", "mlp", "norm", "head", "other")
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}


def anatomy(source: ModelSource, facts: ModelFacts) -> Anatomy:
    """Layers, heads, widths and weights of a model.

    Args:
        source: its file or folder.
        facts: what the engine found when it loaded it.

    Raises:
        EngineError: its file can't be read.
    """
    try:
        read = _of_gguf if source.kind == "gguf" else _of_folder
        tensors, known = read(Path(source.path))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise EngineError(f"cannot read {source.path}: {str(error)[:200]}") from error
    sums: dict[Name, list[int]] = defaultdict(lambda: [0, 0])
    for name, parameters, size in tensors:
        total = sums[_part_of(name)]
        total[0] += parameters
        total[1] += size
    tied = sums["head"][0] == 0
    heads = known["heads"]
    known["head_width"] = known["head_width"] or (known["width"] // heads if heads else 0)
    known["kv_heads"] = known["kv_heads"] or heads
    kept = 2 * known["layers"] * known["kv_heads"] * known["head_width"]
    stored = 2 if facts.runtime == "llama.cpp" or facts.dtype in ("float16", "bfloat16") else 4
    # The embedding is looked up, not multiplied with, unless it is the head too.
    looked_up = 0 if tied else sums["embedding"][0]
    multiplied = sum(parameters for parameters, _ in sums.values()) - looked_up
    unread = 0 if tied else sums["embedding"][1]
    return Anatomy(
        **known,
        parameters=sum(parameters for parameters, _ in sums.values()),
        tied=tied,
        vocabulary=facts.vocab_size,
        weight_format=facts.weight_format,
        parts=tuple(ModelPart(name, *sums[name]) for name in _ORDER if sums[name][0]),
        kv_bytes_per_token=kept * stored,
        operations_per_token=2 * multiplied,
        bytes_per_token=sum(size for _, size in sums.values()) - unread,
        memory_bytes_per_second=memory_speed(max(1, facts.threads)),
    )


def _of_gguf(file: Path) -> tuple[Iterator[tuple[str, int, int]], dict[str, Any]]:
    """Name, parameters and bytes of each tensor; and what `Anatomy` calls the rest."""
    from chatapp.engine.runtimes.gguf_reader import read_gguf

    reader = read_gguf(file)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        return field.contents() if field is not None else None

    architecture = str(value("general.architecture"))

    def number(key: str) -> int:
        found = value(f"{architecture}.{key}")
        if isinstance(found, list):
            found = max(found)
        return int(found or 0)

    names = {tensor.name for tensor in reader.tensors}
    gated = any(".ffn_gate" in name for name in names)
    heads = number("attention.head_count")
    position = "learned" if "position_embd.weight" in names else "rotary" if heads else "none"
    is_rms = value(f"{architecture}.attention.layer_norm_rms_epsilon") is not None
    gelu = architecture.startswith(("gemma", "gpt", "phi2", "starcoder", "falcon"))
    known = {
        "architecture": architecture,
        "layers": number("block_count"),
        "heads": heads,
        "kv_heads": number("attention.head_count_kv"),
        "width": number("embedding_length"),
        "head_width": number("attention.key_length"),
        "mlp_width": number("feed_forward_length"),
        "context": number("context_length"),
        "position": position,
        "activation": ("GELU" if gelu else "SiLU") + (", gated" if gated else ""),
        "norm": "RMSNorm" if is_rms else "LayerNorm",
    }
    tensors = ((one.name, int(one.n_elements), int(one.n_bytes)) for one in reader.tensors)
    return tensors, known


def _of_folder(folder: Path) -> tuple[Iterator[tuple[str, int, int]], dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config = config.get("text_config") or config

    def number(*keys: str) -> int:
        found = next((config[key] for key in keys if config.get(key) is not None), 0)
        return int(found) if isinstance(found, int | float) and math.isfinite(found) else 0

    kind = str(config.get("model_type", "?"))
    rotary = any(
        key in config for key in ("rope_theta", "rope_parameters", "rope_scaling", "rotary_pct")
    )
    context = number("max_position_embeddings", "n_positions", "n_ctx")
    known = {
        "architecture": kind,
        "layers": number("num_hidden_layers", "n_layer"),
        "heads": number("num_attention_heads", "n_head"),
        "kv_heads": number("num_key_value_heads"),
        "width": number("hidden_size", "n_embd"),
        "head_width": number("head_dim"),
        "mlp_width": number("intermediate_size", "n_inner"),
        "context": context,
        "position": "rotary" if rotary else "learned" if context else "none",
        "activation": str(
            config.get("hidden_act") or config.get("activation_function") or "unknown"
        ),
        "norm": "RMSNorm" if "rms_norm_eps" in config else "LayerNorm",
    }
    return _folder_tensors(folder, bool(config.get("tie_word_embeddings", True))), known


def _folder_tensors(folder: Path, tied: bool) -> Iterator[tuple[str, int, int]]:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                if tied and _part_of(name) == "head":
                    continue  # the same numbers once more
                one = weights.get_slice(name)
                count = math.prod(one.get_shape())
                yield name, count, count * _BYTES.get(one.get_dtype(), 4)


def _part_of(tensor: str) -> Name:
    """Which part of a model a tensor belongs to, by its name in a GGUF or a folder."""
    name = tensor.removesuffix(".weight").removesuffix(".bias")
    last = name.rsplit(".", 1)[-1]
    if "norm" in last or last.startswith("ln_") or last.endswith("layernorm"):
        return "norm"
    if name in ("output", "lm_head", "embed_out") or name.endswith((".lm_head", ".embed_out")):
        return "head"
    if "embd" in last or last.startswith(("embed", "wte", "wpe")):
        return "embedding"
    if "attn" in name or "attention" in name:
        return "attention"
    if any(part in name for part in ("mlp", "ffn", "feed_forward", "fc1", "fc2", "experts")):
        return "mlp"
    return "other"
