"""What each stage of the sampler did to one step: the values that the inspector shows.

Every column (the probabilities after one stage) sums to 1: the tokens asked for, and the rest of
the vocabulary as one number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token after one stage."""

    id: int
    logit: float | None
    """None once it is out of play: banned, cut, or given no chance by the model itself."""
    prob: float
    """Among what is alive after the stage; 0 when out of play."""
    removed: bool
    """This stage is the one that took it out."""


@dataclass(frozen=True, slots=True)
class StageTrace:
    """The distribution after one stage; the first stage is "model", which changes nothing."""

    stage: str
    setting: float | None
    """What the user had set; None for "model", and for "bias", which has one per token."""
    threshold: float | None
    """What a token needed to stay, in the measure that `Removal` names; None where nothing was."""
    temperature: float | None
    """What the stage "temperature" divided the logits by (0: it took the arg-max); else None."""
    drawn: float | None
    """The uniform number that a random stage drew; None where it drew none."""
    tokens: tuple[TracedToken, ...]
    """In the order in which they were asked for."""
    other_prob: float
    """The rest of the vocabulary."""
    alive: int
    """How many tokens of the vocabulary are still in play after the stage."""


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One step through the chain; stages that are off are not among them."""

    stages: tuple[StageTrace, ...]
