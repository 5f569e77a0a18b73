"""What a token attends to: one row on the kept prefix, all rows of a short text, what heads do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from chatapp.chat.errors import EngineError
from chatapp.chat.xray import MOST_FOR_ALL, HeadProfile
from chatapp.engine.xray.weights import Weights


def last_row(weights: Weights, ids: Sequence[int], before: Any) -> list[Tensor]:
    """The attention of the last of some ids: by layer, (heads, 1, n), each row summing to 1.

    It is computed step by step for that one alone; `before` is the cache of the others. A sliding
    window's row has zeros where the window doesn't reach. Raises EngineError: the model failed, or
    tells no attention.
    """
    rows = _attention(weights, ids[-1:], before)
    if any(one.shape[-1] > len(ids) for one in rows):
        raise EngineError("this model attends to more than its text; its rows can't be told apart")
    return [torch.nn.functional.pad(one, (len(ids) - one.shape[-1], 0)) for one in rows]


def every_row(weights: Weights, ids: Sequence[int]) -> list[Tensor]:
    """Every token's attention: by layer, (heads, n, n). Raises EngineError."""
    if len(ids) > MOST_FOR_ALL:
        raise EngineError(
            f"all rows of {len(ids)} tokens are too many; at most {MOST_FOR_ALL}, or ask for one"
            " token's row"
        )
    return _attention(weights, ids, None)


@torch.inference_mode()
def _attention(weights: Weights, ids: Sequence[int], before: Any) -> list[Tensor]:
    with weights.eager():
        told = getattr(weights.run(ids, before, output_attentions=True), "attentions", None)
    if not told or any(one is None for one in told) or len(told) != weights.layer_count:
        raise EngineError(
            f"{weights.name} tells no attention of every layer: some of its layers have none"
        )
    return [one[0].float().cpu() for one in told]


def profiles(rows: Sequence[Tensor], ids: Sequence[int]) -> list[HeadProfile]:
    """What every head does at the last token, measured on its row.

    Args:
        rows: by layer, (heads, 1, n).
        ids: the n tokens.
    """
    last = len(ids) - 1
    same = [place for place in range(last) if ids[place] == ids[last]]
    after = [place + 1 for place in same if place + 1 < last]
    found: list[HeadProfile] = []
    for layer, heads in enumerate(rows):
        for head, row in enumerate(heads[:, 0].double()):
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
