"""What a search asks of the model's numbers before it trusts them."""

from __future__ import annotations

import torch

from chatapp.engine.sampler.chain import BadLogits


def check_logits(logits: torch.Tensor) -> None:
    """See that every row of logits makes a distribution.

    Args:
        logits: (V,) or (rows, V) float32; -inf is allowed.

    Raises:
        BadLogits: NaN, +inf, or nothing but -inf.
    """
    if not bool(logits.amax(dim=-1).isfinite().all()):  # the largest is NaN where any is
        raise BadLogits(
            "the model's logits make no distribution (NaN or infinite); load it with"
            " --dtype float32 or check its file with `chatapp models info`"
        )
