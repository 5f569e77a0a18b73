"""Whether a model's files and its configuration are about the same model, and all of it is used.

A library that fills in what a file lacks, or leaves out what it doesn't know, runs another model
than the one that was asked for, and every number is wrong. So what doesn't add up is refused, in
words. Sizes are held against the weights before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatapp.chat.errors import EngineError, first_line

_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers")
_SIZES = (
    "hidden_size",
    "n_embd",
    "d_model",
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "vocab_size",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_local_experts",
    "moe_intermediate_size",
    "max_position_embeddings",
    "n_positions",
    "sliding_window",
)
_LONGEST = 1 << 30
"""No size in a configuration is larger than this: not even a context."""
_HARMLESS = (".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".position_ids")
"""Tensors that older versions of transformers saved and every newer one computes by itself."""
_STEP_DIFFERENCE = 0.05
"""Largest difference of logits, as a share of their spread, between two ways to read two tokens."""


def check_sizes(folder: Path, config: Mapping[str, Any], elements: int, tensors: int) -> None:
    """Hold a configuration's sizes against the weights.

    `elements`: how many numbers the weights hold. `tensors`: how many tensors. Raises EngineError:
    a size is none, or larger than the weights allow.
    """
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for name in (*_COUNTS, *_SIZES):
            value = part.get(name)
            if value is None:
                continue
            long = name in ("max_position_embeddings", "n_positions", "sliding_window")
            most = tensors if name in _COUNTS else _LONGEST if long else elements
            several = value if isinstance(value, list) else [value]  # some have one a layer
            if any(type(one) is not int or not 0 < one <= most for one in several):
                raise EngineError(
                    f"{folder / 'config.json'} doesn't fit the weights: {name} is"
                    f" {str(value)[:40]}, and they hold {elements:,} numbers in {tensors} tensors;"
                    " fetch or copy the folder again"
                )


def check_parameters(folder: Path, config: Any, elements: int) -> None:
    """Hold the model that a configuration describes against the weights, without any memory.

    Raises EngineError: the model has more numbers than the files.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=False)
    needed = sum(one.numel() for one in model.parameters())
    if needed > elements:
        raise EngineError(
            f"{folder} lacks weights: its configuration describes {needed:,} numbers, and its files"
            f" hold {elements:,}; fetch or copy it whole"
        )


def check_used(where: str, info: Mapping[str, Any]) -> None:
    """Refuse what was filled in or left out when weights were loaded.

    `info`: what transformers tells of the loading. Raises EngineError: a tensor is missing, is of
    another shape, or isn't known.
    """
    if missing := sorted(map(str, info.get("missing_keys") or ())):
        raise EngineError(
            f"{where} lacks {_named(missing)}, which its configuration needs; fetch or copy it"
            " whole (a base without its head can't write)"
        )
    if mismatched := [str(one[0]) for one in info.get("mismatched_keys") or ()]:
        raise EngineError(f"{where} holds {_named(mismatched)} in other shapes than config.json")
    unknown = [
        name
        for name in sorted(map(str, info.get("unexpected_keys") or ()))
        if not name.endswith(_HARMLESS)
    ]
    if unknown:
        raise EngineError(
            f"{where} holds {_named(unknown)}, which this architecture doesn't know: without them"
            " every number would be wrong; take another file, or a newer chatapp"
        )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more tensors"


def check_gguf_used(file: Path, reader: Any, model: Any) -> None:
    """Refuse a GGUF of which transformers' reader leaves something out.

    Its reader keeps silent about tensors and scalings that it doesn't know; the numbers that it
    took must be as many as the file holds. Raises EngineError: it left something out.
    """
    way_out = "run the file on llama.cpp (leave --runtime transformers away)"
    for name, field in reader.fields.items():
        if name.endswith(".rope.scaling.type") and field.contents() != "none":
            raise EngineError(
                f"{file} scales its positions by {str(field.contents())[:40]!r}, which the"
                f" transformers runtime doesn't read from a GGUF; {way_out}"
            )
    held = {one.name: int(one.n_elements) for one in reader.tensors}
    if "rope_freqs.weight" in held:
        raise EngineError(
            f"{file} holds rope_freqs.weight, and the transformers runtime can't read it; {way_out}"
        )
    taken = sum(one.numel() for one in model.parameters())
    tied = model.get_output_embeddings()
    if tied is not None and tied.weight is model.get_input_embeddings().weight:
        held.pop("output.weight", None)
    if (there := sum(held.values())) != taken:
        odd = [name for name in held if name.endswith(".bias")] if there > taken else []
        names = f" (perhaps not {_named(odd)})" if odd else ""
        raise EngineError(
            f"{file} holds {there:,} numbers, and the transformers runtime knows {taken:,} of"
            f" them{names}; {way_out}"
        )


def check_steps(runtime: Any, name: str) -> None:
    """Read two tokens at once and one by one: the numbers must be the same.

    What keeps its state otherwise than the program does (or not at all) would answer without what
    stands before. Raises EngineError: it can't step.
    """
    ids = [min(runtime.facts.vocab_size, 7) - 1, min(runtime.facts.vocab_size, 12) - 1]
    try:
        whole = runtime.sequence().read(ids, last=1).logits[-1]
        stepped = runtime.sequence()
        for token_id in ids:
            last = stepped.read([token_id], last=1).logits[-1]
    except EngineError:
        raise
    except Exception as error:
        lacks = isinstance(error, AttributeError | TypeError)  # said in names of classes
        why = "it hands no KV cache on" if lacks else first_line(error)
        raise EngineError(
            f"{name} ({runtime.facts.architecture}) can't be run token by token: {why};"
            " choose a model of another architecture"
        ) from error
    spread = float(np.std(whole)) or 1.0
    apart = float(np.abs(whole - last).max())
    if not math.isfinite(apart) or apart > _STEP_DIFFERENCE * spread:
        raise EngineError(
            f"{name} ({runtime.facts.architecture}) doesn't go on from its KV cache: read token by"
            " token it gives other numbers than read at once; choose another model"
        )


def check_plain_files(folder: Path) -> None:
    """Refuse what is no plain file: to read a pipe or a device may never end.

    Raises EngineError: there is such a thing in the folder.
    """
    for file in folder.iterdir():
        if file.exists() and not file.is_file() and not file.is_dir():
            raise EngineError(f"{file} is no plain file; a model's files have to be")
