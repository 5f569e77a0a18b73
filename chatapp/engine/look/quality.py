"""How far a model as it runs is from the same weights in float32: what quantization costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chatapp.chat.bench import Quality
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled
from chatapp.chat.record import perplexity
from chatapp.engine.look.teacher_forcing import force
from chatapp.engine.runtimes.base import Floats, Runtime

TOP = 20
"""Of so many tokens, the float32 model's most probable ones, the logprobs are compared."""


def quality(
    runtime: Runtime, reference: Runtime, ids: Sequence[int], cancelled: IsCancelled
) -> Quality | None:
    """Let both read the same text.

    `reference`: the same weights in float32, with the same vocabulary. Returns None when it was
    cancelled. Raises EngineError: the text does not fit into the context, or the two are not the
    same model.
    """
    divergences: list[float] = []
    agreed: list[bool] = []
    differences: list[float] = []
    surprisal, surprisal_float32 = [], []
    pieces = zip(
        force(runtime, ids, 1, lambda _: None, cancelled),
        force(reference, ids, 1, lambda _: None, cancelled),
        strict=False,
    )
    for ours, theirs in pieces:
        if ours.logits.shape != theirs.logits.shape:
            raise EngineError("the model and its float32 weights have different vocabularies")
        for place, (mine, other) in enumerate(zip(ours.logits, theirs.logits, strict=True)):
            token_id = ids[ours.start + place]
            own, exact = _logprobs(mine), _logprobs(other)
            probs = np.exp(exact)
            divergences.append(float((probs * (exact - own))[probs > 0].sum()))
            agreed.append(bool(own.argmax() == exact.argmax()))
            top = np.argpartition(-exact, TOP)[:TOP] if exact.size > TOP else np.arange(exact.size)
            differences += np.abs(own[top] - exact[top]).tolist()
            surprisal.append(-float(own[token_id]))
            surprisal_float32.append(-float(exact[token_id]))
    if cancelled() or not divergences:
        return None
    return Quality(
        tokens=len(divergences),
        kl_mean=math.fsum(divergences) / len(divergences),
        kl_max=max(divergences),
        agreement=sum(agreed) / len(agreed),
        perplexity=perplexity([-one for one in surprisal]),
        perplexity_float32=perplexity([-one for one in surprisal_float32]),
        top_difference_mean=math.fsum(differences) / len(differences),
        top_difference_max=max(differences),
    )


def _logprobs(logits: Floats) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    logprobs: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return logprobs
