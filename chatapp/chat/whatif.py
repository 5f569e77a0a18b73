"""A finished reply under other settings: what each of its tokens would have been worth.

The reply stays as it is and the model is not run; only the sampler looks at its logits again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WhatIfToken:
    """One token of the reply under the other settings. Logprobs are natural; -inf is no chance."""

    id: int
    """The token that the reply has here."""
    model_logprob: float
    """ln p under the model alone; no setting changes it."""
    tempered_logprob: float
    """ln p after logit edits and temperature ("T")."""
    logprob: float
    """ln p in the distribution that a draw would be made from ("final").

    Where XTC's coin decides, the expectation over the coin: the chance that this token is drawn.
    """
    removed_by: str | None
    """The first stage that cuts it; None where it can be drawn, or the model gave it no chance."""
    choices: int
    """How many tokens could be drawn here, this one among them or not."""
    best_id: int
    """The most probable token of that distribution, the lowest id among equals."""

    @property
    def model_prob(self) -> float:
        return math.exp(self.model_logprob)

    @property
    def tempered_prob(self) -> float:
        return math.exp(self.tempered_logprob)

    @property
    def prob(self) -> float:
        return math.exp(self.logprob)

    @property
    def impossible(self) -> bool:
        return self.logprob == -math.inf

    @property
    def differs(self) -> bool:
        """Whether another token is the most probable one."""
        return self.best_id != self.id


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A whole reply under other settings."""

    tokens: tuple[WhatIfToken, ...]

    @property
    def total_logprob(self) -> float:
        """ln of the chance that these settings draw exactly this reply; -inf when impossible."""
        logprobs = [token.logprob for token in self.tokens]
        return -math.inf if -math.inf in logprobs else math.fsum(logprobs)

    @property
    def impossible_count(self) -> int:
        """How many tokens could not be drawn any more."""
        return sum(token.impossible for token in self.tokens)

    @property
    def different_count(self) -> int:
        """At how many places another token is the most probable one."""
        return sum(token.differs for token in self.tokens)
