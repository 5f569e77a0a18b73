"""How a model knows the order of its tokens."""

from __future__ import annotations

import math

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.xray import Positions
from chatapp.engine.xray.weights import Weights

_DISTANCES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_LEARNED = ("wpe", "embed_positions", "position_embeddings")


@torch.inference_mode()
def positions(weights: Weights, position: int) -> Positions:
    """Rotary angles (Su et al. 2021), or the learned table, at one position.

    Raises:
        EngineError: the model reads no text as long.
    """
    context = int(getattr(weights.config, "max_position_embeddings", 0) or 0)
    if position < 0 or (context and position >= context):
        raise EngineError(f"there is no position {position}; they go from 0 to {context - 1}")
    rotary = getattr(weights.base, "rotary_emb", None)
    if isinstance(rotary, torch.nn.Module) and (turning := _frequencies(rotary)) is not None:
        frequencies = turning.double()
        falloff = [
            (distance, float(torch.cos(distance * frequencies).mean()))
            for distance in _DISTANCES
            if not context or distance < context
        ]
        return Positions(
            "rotary",
            position,
            tuple(float(angle) for angle in position * frequencies),
            tuple(2 * math.pi / float(one) for one in frequencies),
            tuple(falloff),
        )
    for name in _LEARNED:
        table = getattr(getattr(weights.base, name, None), "weight", None)
        if isinstance(table, torch.Tensor) and position < len(table):
            rows = table.double()
            cosines = torch.nn.functional.cosine_similarity(rows, rows[position : position + 1])
            reached = {position + sign * far for far in _DISTANCES for sign in (-1, 1)}
            others = sorted(one for one in reached if 0 <= one < len(rows))
            return Positions(
                "learned", position, (), (), tuple((one, float(cosines[one])) for one in others)
            )
    return Positions("none", position, (), (), ())


def _frequencies(rotary: torch.nn.Module) -> torch.Tensor | None:
    """Radians a token for each pair; of layers with a window and without, those without."""
    named = {name: one for name, one in rotary.named_buffers() if name.endswith("inv_freq")}
    own = [one for name, one in named.items() if "original" not in name]
    full = [one for name, one in named.items() if "full" in name and "original" not in name]
    return next(iter((*full, *own)), None)
