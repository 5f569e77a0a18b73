"""Looking at what is written: at one step of a reply, at a reply under other settings, at a text.

A step is asked about by the ids before it, not by where a chat keeps it, so that a reply of an
earlier day, a branch and a reply that still streams are all asked about in the same way. A reply
under other settings stays as it is and the model is not run; only the sampler looks at its logits
again. Scoring a text tells, in order, any number of `Progress`, one `ScoreStart`, a `TokenRecord`
for every token that has a context, and one `ScoreEnd`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from chatapp.chat.conversation import Reply
from chatapp.chat.facts import Progress
from chatapp.chat.prompt import PromptFormat, TokenPiece
from chatapp.chat.record import Candidate, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams

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
    """The distribution after one stage; the first stage is "model", which changes nothing.

    It sums to 1: the tokens asked for, and the rest of the vocabulary as one number.
    """

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


PLAIN = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
"""Every stage off: tempered and final probabilities are the model's. What scoring goes by."""


@dataclass(frozen=True, slots=True)
class ScoreStart:
    """The text in tokens."""

    tokens: tuple[TokenPiece, ...]
    """A record's `index` is a place among these."""
    context_tokens: int
    """How many tokens the model reads before the first of them: its BOS token, or a prompt."""
    first: int
    """The index of the first record: 1 where nothing stands before the text, else 0."""


@dataclass(frozen=True, slots=True)
class ScoreEnd:
    """The text is scored, or scoring was stopped."""

    scored: int
    """How many records came."""
    total_logprob: float
    """Sum of their ln p."""
    perplexity: float
    """exp(−total_logprob / scored); NaN when nothing was scored."""
    seconds: float
    cancelled: bool = False


ScoreEvent = Progress | ScoreStart | TokenRecord | ScoreEnd
