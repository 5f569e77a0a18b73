"""What a token attends to: one row on the kept prefix, all rows of a short text, what heads do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from chatapp.chat.errors import EngineError
from chatapp.chat.xray import MOST_FOR_ALL, HeadProfile
from chatapp.engine.xray.weights import Weights


@torch.inference_mode()
def attention_rows(weights: Weights, ids: Sequence[int], before: Any) -> list[Tensor]:
    """The attention of the last of some ids: by layer, (heads, n), each row summing to 1.

    It is computed step by step for that one alone; `before` is the cache of the others. A sliding
    window's row has zeros where the window doesn't reach.

    Raises:
        EngineError: the model failed, or tells no attention.
    """
    try:
        with weights.eager():
            output = weights.model(
                torch.tensor([[ids[-1]]], device=weights.input.device),
                **{weights.cache_argument: before},
                use_cache=True,
                output_attentions=True,
                logits_to_keep=1,
            )
    except (RuntimeError, MemoryError, ValueError, TypeError) as error:
        raise EngineError(f"the model failed: {str(error)[:200]}") from error
    return [_padded(one[0, :, -1], len(ids)) for one in _told(weights, output)]


@torch.inference_mode()
def all_attention(weights: Weights, ids: Sequence[int]) -> list[Tensor]:
    """Every token's attention: by layer, (heads, n, n). Raises EngineError."""
    if len(ids) > MOST_FOR_ALL:
        raise EngineError(
            f"all rows of {len(ids)} tokens are too many; at most {MOST_FOR_ALL}, or ask for one"
            " token's row"
        )
    try:
        with weights.eager():
            output = weights.model(
                torch.tensor([list(ids)], device=weights.input.device),
                use_cache=False,
                output_attentions=True,
                logits_to_keep=1,
            )
    except (RuntimeError, MemoryError, ValueError, TypeError) as error:
        raise EngineError(f"the model failed: {str(error)[:200]}") from error
    return [one[0].float().cpu() for one in _told(weights, output)]


def profiles(rows: Sequence[Tensor], ids: Sequence[int]) -> list[HeadProfile]:
    """What every head does at the last token, measured on its row.

    Args:
        rows: by layer, (heads, n).
        ids: the n tokens.
    """
    last = len(ids) - 1
    same = [place for place in range(last) if ids[place] == ids[last]]
    after = [place + 1 for place in same if place + 1 < last]
    found: list[HeadProfile] = []
    for layer, heads in enumerate(rows):
        for head, row in enumerate(heads.double()):
            found.append(
                HeadProfile(
                    layer,
                    head,
                    entropy_bits=float(-(row * torch.log2(row.clamp_min(1e-300))).sum()),
                    first=float(row[0]),
                    previous=float(row[last - 1]) if last else 0.0,
                    same=float(row[same].sum()),
                    induction=float(row[after].sum()),
                )
            )
    return found


def _told(weights: Weights, output: object) -> Sequence[Tensor]:
    told = getattr(output, "attentions", None)
    if not told or any(one is None for one in told) or len(told) != weights.layer_count:
        raise EngineError(
            f"{weights.name} tells no attention of every layer: some of its layers have none"
        )
    attentions: Sequence[Tensor] = told
    return attentions


def _padded(rows: Tensor, length: int) -> Tensor:
    """(heads, n) of (heads, window): what the window doesn't reach is 0."""
    rows = rows.float().cpu()
    if rows.shape[-1] > length:
        raise EngineError("this model attends to more than its text; its rows can't be told apart")
    return torch.nn.functional.pad(rows, (length - rows.shape[-1], 0))
