"""What a search asks of the model's numbers before it trusts them."""

from __future__ import annotations

import numpy as np

from chatapp.engine.runtimes.base import Floats
from chatapp.engine.sampler.chain import BadLogits


def check_logits(logits: Floats) -> None:
    """See that every row of logits makes a distribution.

    `logits`: (V,) or (rows, V) float32; -inf is allowed. Raises BadLogits: NaN, +inf, or nothing
    but -inf.
    """
    if not np.isfinite(logits.max(axis=-1)).all():  # the largest is NaN where any is
        raise BadLogits(
            "the model's logits make no distribution (NaN or infinite); load it with"
            " --dtype float32 or check its file with `chatapp models info`"
        )


def log_softmax(logits: Floats) -> Floats:
    """ln p of every token, in float32 as transformers has it; of the shape of the logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    logprobs: Floats = shifted - np.log(total).astype(np.float32)
    return logprobs
