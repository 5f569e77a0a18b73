"""What one step of generation tells: the chosen token, its rivals, and every number about them.

The definitions of the numbers are in the README ("What each number means"). Vectors as long as the
vocabulary never leave the engine: what is not among the candidates is summed into three numbers.
What a server elsewhere does not tell is NaN, and 0 for a rank or a count (`chatapp.chat.served`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from chatapp.chat.prompt import Bytes
from chatapp.chat.sampling import SamplingParams


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    """The model chose one of its end tokens."""
    STOP_SEQUENCE = "stop_sequence"
    """The text reached a stop sequence."""
    LENGTH = "length"
    """The maximum number of tokens was reached."""
    CONTEXT = "context"
    """No room is left in the context."""
    CANCELLED = "cancelled"
    """The user stopped it."""
    ERROR = "error"
    """The engine failed; what came before is kept."""


ENDED_WELL = (FinishReason.STOP, FinishReason.STOP_SEQUENCE, FinishReason.LENGTH)
"""How a reply ends that is not stopped, cut or failed."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The first stage that cut a candidate, and by how much it missed.

    What `threshold` and `value` measure depends on the stage: a probability for min_p, xtc and
    mirostat (there in bits), a cumulative probability for top_p and typical, a rank for top_k, a
    logit for top_n_sigma; -inf against -inf for a ban.
    """

    stage: str
    setting: float
    """What the user had set: 0.05 for "min-p 0.05"."""
    threshold: float
    """What the candidate needed."""
    value: float
    """What the candidate had."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One token the model weighed at one step."""

    id: int
    token: str
    """The token's bytes as text, with what is not valid UTF-8 written as \\xNN."""
    bytes: Bytes
    logprob: float
    """ln p under the model alone ("model"); nothing the user sets changes it."""
    tempered_prob: float
    """After logit edits and temperature ("T")."""
    prob: float
    """What the draw was made from ("final"); 0 when removed."""
    rank: int
    """1 + the number of tokens with a larger model logit."""
    removed_by: Removal | None = None

    @property
    def model_prob(self) -> float:
        return math.exp(self.logprob)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One step: the token taken, and what there was to take."""

    index: int
    """Position in the reply, from 0."""
    id: int
    token: str
    bytes: Bytes
    text: str
    """What became printable with this token; may be empty inside a character."""
    logprob: float
    tempered_prob: float
    prob: float
    rank: int
    entropy_bits: float
    """−Σ p log2 p of the model distribution, over the whole vocabulary."""
    final_entropy_bits: float
    """The same of the final distribution."""
    p_end: float
    """Total model probability of all tokens that end a reply."""
    temperature: float
    """The temperature this token was drawn with."""
    candidates: tuple[Candidate, ...]
    """The most probable by model logit, best first; the chosen one is added if it is not there."""
    other_count: int
    """How many tokens of the vocabulary are not among the candidates."""
    other_model_prob: float
    other_tempered_prob: float
    other_prob: float
    """1 − Σ of the candidates' final probabilities."""
    draw: float | None = None
    """The uniform number in [0, 1) that chose; None where nothing was drawn (T = 0, forced)."""

    @property
    def model_prob(self) -> float:
        return math.exp(self.logprob)

    @property
    def surprisal_bits(self) -> float:
        """−log2 p_model(chosen)."""
        return -self.logprob / math.log(2)


@dataclass(frozen=True, slots=True)
class SamplingSpan:
    """From which token of a reply on which parameters held."""

    start: int
    sampling: SamplingParams


def perplexity(logprobs: Sequence[float]) -> float:
    """exp(mean of −logprob) over the tokens of a text that have one; NaN when there are none."""
    known = [logprob for logprob in logprobs if not math.isnan(logprob)]
    if not known:
        return math.nan
    try:
        return math.exp(-math.fsum(known) / len(known))
    except OverflowError:  # a token with (almost) no chance at all
        return math.inf
