"""Looking back at one step of a reply: what is asked, and what is told.

A step is asked about by the ids before it, not by where a chat keeps it, so that a reply of an
earlier day, a branch and a reply that still streams are all asked about in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chatapp.chat.conversation import Reply
from chatapp.chat.prompt import PromptFormat, TokenPiece
from chatapp.chat.record import Candidate, SamplingSpan
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.trace import StepTrace

_UNTOLD = SamplingParams()
"""What a reply without spans was drawn with, as far as anyone can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReply:
    """All of a reply that its numbers follow from, once the model is given."""

    prompt_ids: tuple[int, ...]
    """What the model read before the reply; the start of the reply is not among them."""
    ids: tuple[int, ...]
    """The tokens of the reply, as far as it has come."""
    draws: tuple[float | None, ...] = ()
    """For each token the number that chose it; None where nothing was drawn."""
    probs: tuple[float, ...] = ()
    """For each token its final probability."""
    spans: tuple[SamplingSpan, ...] = ()
    seed: int = 0
    """Of the request that wrote the end of it; a start taken over from another reply had another
    one."""
    stop: tuple[str, ...] = ()
    """Stop sequences besides the format's: those that are control tokens end the reply."""
    format: PromptFormat = field(default_factory=PromptFormat)

    @classmethod
    def of(cls, reply: Reply, stop: tuple[str, ...], prompt_format: PromptFormat) -> WrittenReply:
        """A reply of a conversation as the engine wants it."""
        return cls(
            prompt_ids=reply.prompt_ids,
            ids=reply.ids,
            draws=tuple(record.draw for record in reply.records),
            probs=tuple(record.prob for record in reply.records),
            spans=reply.sampling,
            seed=reply.seed,
            stop=stop,
            format=prompt_format,
        )

    def sampling_at(self, index: int) -> SamplingParams:
        """What the token at an index was drawn with."""
        found = _UNTOLD
        for span in self.spans:
            if span.start > index:
                break
            found = span.sampling
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyStep:
    """One step of a reply."""

    reply: WrittenReply
    index: int
    """Which token of the reply, from 0; as many as it has is the next one, not taken yet."""
    sampling: SamplingParams | None = None
    """Other settings to look at it with; None takes those it was drawn with."""


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One step, stage by stage, for some tokens."""

    trace: StepTrace
    candidates: tuple[Candidate, ...]
    """The tokens that were asked for, in the order in which the stages tell of them."""
    sampling: SamplingParams
    """What the step was looked at with."""
    draw: float | None
    """The number that chose the token; None where nothing was drawn, or under other settings."""
    recomputed: bool
    """Whether the model was run again because the logits were gone."""
    note: str = ""
    """What could not be made sure of: which number XTC drew, say. Empty when all is exact."""


@dataclass(frozen=True, slots=True)
class CandidatePage:
    """Some neighbouring ranks of the whole vocabulary."""

    start: int
    """The place of the first one, from 0 (the most probable by the model)."""
    candidates: tuple[Candidate, ...]
    vocabulary: int
    """How many tokens there are in all."""
    choices: int
    """How many of them could be drawn."""


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token that was looked for, and what it would have taken to be chosen.

    Where it was cut, `candidate.removed_by` says by which stage and by how much it missed.
    """

    candidate: Candidate
    draw_from: float | None
    """It is chosen when the number drawn is at least this; None where no draw gives it."""
    draw_to: float | None
    """... and below this."""
    bias_to_lead: float | None
    """How much its logit must gain, after the edits, to be level with the best other token: 0 when
    it leads. None where no bias helps: it is banned, or the model gives it no chance."""


@dataclass(frozen=True, slots=True)
class SpeltText:
    """A text in the tokens that would say it at some step."""

    tokens: tuple[TokenPiece, ...]
    """One or more; as ordinary text, none of them a control token."""
    first: FoundToken
    """The numbers of the first of them, which is what the step decides about."""
