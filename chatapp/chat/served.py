"""Models that another program serves: which servers there are, and what their numbers mean.

A server tells a probability or two of each token and keeps the rest to itself. What it does not
tell is NaN in a record (a rank or a count 0, an id `UNTOLD` or more), never a guess.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from chatapp.chat.record import TokenRecord
from chatapp.chat.sampling import SamplingParams

UNTOLD = 1 << 31
"""Ids from here on are no model's: they tell the tokens of a record apart where the server knows
them by their text alone."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the numbers of one kind of server are."""

    column: Literal["logprob", "tempered_prob"]
    """Which of a token's numbers it gives."""
    known: bool
    """Whether the program says so; else it may as well be another one."""
    words: str
    """For the user."""

    @property
    def meanings(self) -> dict[str, str]:
        """For each of a token's numbers what the server's word for it is worth."""
        raw = "raw" if self.known else "as the server gives it"
        processed = "processed" if self.column == "tempered_prob" else "unknown"
        return {"logprob": raw, "tempered_prob": processed, "prob": "unknown"}


SERVERS: Mapping[str, Told] = MappingProxyType(
    {
        "llama-server": Told("logprob", True, "the model's own probabilities"),
        # Unless it was started with another --logprobs-mode, which it does not tell.
        "vLLM": Told("logprob", True, "the model's own probabilities, unless it was set otherwise"),
        # log_softmax(logits / T) behind penalties and biases (srt/layers/sampler.py), unless
        # SGLANG_RETURN_ORIGINAL_LOGPROB is set.
        "SGLang": Told("tempered_prob", True, "probabilities after penalties and temperature"),
        "Ollama": Told("logprob", True, "the model's own probabilities"),
        "LM Studio": Told("logprob", False, "probabilities of which it does not say what they are"),
        "server": Told("logprob", False, "probabilities of which it does not say what they are"),
    }
)
"""By `ModelFacts.runtime`."""


def told_with(runtime: str, sampling: SamplingParams) -> Told:
    """What a server's numbers are under some settings.

    Where nothing stands between the model and the temperature, and that is 1 (SGLang takes 1 for
    0, too), what comes behind both is the model's own.
    """
    told = SERVERS[runtime]
    plain = SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
    )
    if told.column == "tempered_prob" and sampling.temperature in (0, 1) and sampling == plain:
        return replace(told, column="logprob")
    return told


def id_words(id_: int) -> str:
    """A token's id, for the user."""
    return f"id {id_}" if id_ < UNTOLD else "id n/a"


def untold_id(token: bytes) -> int:
    """An id for a token of which only the text is known; always the same for the same text."""
    return UNTOLD + (zlib.crc32(token) & (UNTOLD - 1))


def entropy_at_least(record: TokenRecord) -> float:
    """A bound of the model's entropy, in bits, from the candidates alone; NaN without a remainder.

    No token outside of the list is more probable than the last one in it, so each of them is at
    least as surprising: H ≥ −Σ p log2 p − r log2 min(r, p_last), r being what the list leaves.
    """
    told = [math.exp(min(one.logprob, 0.0)) for one in record.candidates if one.rank]
    rest = record.other_model_prob
    if not told or math.isnan(rest):
        return math.nan
    listed = -math.fsum(p * math.log2(p) for p in told if p > 0)
    outside = 1 - math.fsum(told)
    largest = min(max(outside, 0.0), told[-1])
    return listed - outside * math.log2(largest) if largest > 0 else listed
