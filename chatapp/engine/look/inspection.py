"""Why a token was chosen, what else there was, and what if: answers about written replies.

The logits come from the history of recent replies. Where they are gone `LogitsGone` is raised, and
`recompute` brings them back by one pass of the model; then the question can be asked again. So
whoever asks decides when the model may run: questions alone never make a reply under way wait.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, Report
from chatapp.chat.inspection import (
    CandidatePage,
    FoundToken,
    ReplyStep,
    SpeltText,
    TracedStep,
    WhatIf,
    WrittenReply,
)
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.record import Candidate
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.look.history import Held, LogitHistory, LogitRow, recompute
from chatapp.engine.look.replay import Before, state_before
from chatapp.engine.look.what_if import ReplyUnderTest
from chatapp.engine.runtimes.base import Runtime
from chatapp.engine.sampler.alive import Ids
from chatapp.engine.sampler.chain import ChainState, Outcome, StepContext, run_chain
from chatapp.engine.sampler.lookup import Lookup
from chatapp.engine.sampler.record import make_candidates
from chatapp.engine.sampler.trace import trace_tokens
from chatapp.engine.sampler.vocabulary import Vocabulary

PAGE = 1000
"""How many candidates are listed at once, at most."""

WINDOW = 128
"""Tokens recomputed around one step of a reply that is too long to be kept whole."""

SAME = 1e-3
"""How far a probability may be from the recorded one by rounding alone."""


class LogitsGone(EngineError):
    """The logits are kept no more; `recompute` brings them back."""


@dataclass(frozen=True)
class _Seen:
    """One step through the chain, and the vocabulary by rank."""

    step: ReplyStep
    outcome: Outcome
    before: Before

    @cached_property
    def order(self) -> Ids:
        """(V,): ids, most probable by the model first, lower ids first among equals.

        Sorted when it is first asked for: a trace of the candidates at hand does without.
        """
        return np.argsort(-self.outcome.model.logits, kind="stable")


class Inspection:
    """Answers about the replies of one model. One thread at a time is let in."""

    def __init__(
        self,
        runtime: Runtime,
        history: LogitHistory,
        end_ids: Callable[[tuple[str, ...], PromptFormat], tuple[int, ...]],
        vocabulary: Vocabulary,
    ) -> None:
        """`end_ids`: the tokens that end a reply with these stop sequences in that format."""
        self._runtime = runtime
        self._history = history
        self._end_ids = end_ids
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._tested: tuple[object, ReplyUnderTest] | None = None
        """What what-if was asked about last: the reply's ids, and the reply."""

    def trace(self, step: ReplyStep, ids: Sequence[int], *, recomputed: bool = False) -> TracedStep:
        """One step stage by stage.

        `recomputed`: whether the model was run for this answer. Raises LogitsGone: `recompute`
        first. Raises EngineError: no such step or token, or the settings leave no token to take.
        """
        with self._lock:
            asked = list(dict.fromkeys(self._check_ids(ids)))
            seen = self._look(step)
            lookup = Lookup(seen.outcome, asked)
            sampling = seen.outcome.params
            own = step.sampling is None or step.sampling == step.reply.sampling_at(step.index)
            draws = step.reply.draws
            return TracedStep(
                trace=trace_tokens(lookup),
                candidates=self._describe(lookup),
                sampling=sampling,
                draw=draws[step.index] if own and step.index < len(draws) else None,
                recomputed=recomputed,
                note=self._note(seen) if own else seen.before.note,
            )

    def candidates(self, step: ReplyStep, start: int, count: int) -> CandidatePage:
        with self._lock:
            seen = self._look(step)
            start = max(start, 0)
            ids = seen.order[start : start + min(max(count, 0), PAGE)].tolist()
            return CandidatePage(
                start=start,
                candidates=self._describe(Lookup(seen.outcome, ids)),
                vocabulary=seen.order.size,
                choices=seen.outcome.final.count,
            )

    def find_tokens(self, step: ReplyStep, wanted: str | int, limit: int) -> tuple[FoundToken, ...]:
        with self._lock:
            seen = self._look(step)
            if isinstance(wanted, int):
                ids = self._check_ids([wanted])
            else:
                ids = self._spelt(seen, wanted, min(max(limit, 0), PAGE))
            return self._found(seen, ids)

    def spell(self, step: ReplyStep, text: str) -> SpeltText:
        tokenizer = self._runtime.tokenizer
        with self._lock:
            ids = tokenizer.encode_inside(text)
            if not ids:
                raise EngineError("there is nothing to take; write a text")
            if tokenizer.control_ids.intersection(ids):  # an unknown token, nothing else
                raise EngineError("the vocabulary has no tokens for a character of this text")
            (first,) = self._found(self._look(step), ids[:1])
            return SpeltText(tokenizer.pieces(ids), first)

    def what_if(self, reply: WrittenReply, sampling: SamplingParams) -> WhatIf:
        """A reply under other settings; quick when it is the same reply as before.

        Raises LogitsGone: `recompute` first. Raises EngineError: the settings leave no token to
        take somewhere.
        """
        with self._lock:
            return self._under_test(reply).under(sampling)

    def recompute(
        self, reply: WrittenReply, index: int | None, on_progress: Report, cancelled: IsCancelled
    ) -> bool:
        """Run the model over a reply again to have its logits.

        `index`: the step that is asked about, also the one behind the last token; None where all of
        them are. Returns whether it was done; False when it was cancelled. Raises EngineError: the
        reply does not fit into the model's context, or the model failed.
        """
        # What a row is about is decided by the ids before it: any id may stand for the next one.
        whole = (*reply.ids, 0) if index == len(reply.ids) else reply.ids
        first, last = 0, len(whole)
        row_bytes = 2 * self._runtime.facts.vocab_size
        fits = row_bytes * last * 1.1 <= self._history.limit_bytes
        if index is not None and not fits:
            first, last = max(0, index - WINDOW // 2), min(last, index + WINDOW // 2)
        before = (*reply.prompt_ids, *whole[:first])
        ids = whole[first:last]
        if not before:
            raise EngineError("the first token of a text has no context; there is nothing to show")
        rows = recompute(self._runtime, before, ids, on_progress, cancelled)
        if rows is None:
            return False
        self._history.keep(before, ids, rows, apart=not fits)
        return True

    def _look(self, step: ReplyStep) -> _Seen:
        """The step through the chain, from the state that it had."""
        if self._seen is not None and self._seen.step == step:
            return self._seen
        reply, index = step.reply, step.index
        if not 0 <= index <= len(reply.ids):
            raise EngineError(f"the reply has no token {index}; it has {len(reply.ids)}")
        before = self._before(reply, index)
        state = ChainState.restore(before.snapshot)
        outcome = self._run(reply, index, step.sampling, state)
        self._seen = _Seen(step, outcome, before)
        return self._seen

    def _before(self, reply: WrittenReply, index: int) -> Before:
        """The chain's state before a step: as it is where the reply is held, or found again."""
        held = self._held_at(reply, index) if index == len(reply.ids) else None
        if held is not None and held.state.seed == reply.seed % 2**64:
            return Before(held.state)
        return state_before(reply, index, lambda place, state: self._run(reply, place, None, state))

    def _held_at(self, reply: WrittenReply, index: int) -> Held | None:
        held = self._history.held
        before = (*reply.prompt_ids, *reply.ids[:index])
        return held if held is not None and held.ids == before else None

    def _run(
        self, reply: WrittenReply, index: int, sampling: SamplingParams | None, state: ChainState
    ) -> Outcome:
        sampling = sampling or reply.sampling_at(index)
        context = StepContext(
            ids=np.array([*reply.prompt_ids, *reply.ids[:index]], dtype=np.int64),
            prompt_length=len(reply.prompt_ids),
            end_ids=np.array(self._end_ids(reply.stop, reply.format), dtype=np.int64),
            vocabulary=self._vocabulary,
        )
        held = self._held_at(reply, index)
        logits = held.logits if held is not None else self._row(reply, index).alive()
        return run_chain(logits, sampling, context, state)

    def _row(self, reply: WrittenReply, index: int) -> LogitRow:
        row = self._history.row((*reply.prompt_ids, *reply.ids[:index]))
        if row is None:
            raise LogitsGone("the logits of this reply are kept no more")
        return row

    def _under_test(self, reply: WrittenReply) -> ReplyUnderTest:
        end_ids = self._end_ids(reply.stop, reply.format)
        which = (reply.prompt_ids, reply.ids, end_ids)
        if self._tested is not None and self._tested[0] == which:
            return self._tested[1]
        rows = self._history.rows(reply.prompt_ids, reply.ids)
        if rows is None:
            rows = tuple(self._row(reply, index) for index in range(len(reply.ids)))
        under = ReplyUnderTest(rows, reply.prompt_ids, reply.ids, end_ids, self._vocabulary)
        self._tested = which, under
        return under

    def _describe(self, lookup: Lookup) -> tuple[Candidate, ...]:
        return make_candidates(lookup, self._runtime.tokenizer.token_bytes)

    def _spelt(self, seen: _Seen, wanted: str, limit: int) -> list[int]:
        """The ids whose text is, begins with, or holds what is wanted."""
        if not wanted:
            raise EngineError("there is nothing to look for; write a text or a token's id")
        text = wanted.encode("utf-8", "replace")
        spaced = text.startswith(b" ")
        tiers: tuple[list[int], list[int], list[int]] = ([], [], [])
        for id_ in seen.order.tolist():
            data = self._runtime.tokenizer.token_bytes(id_)
            if text not in data:
                continue
            bare = data if spaced else data.removeprefix(b" ")
            tiers[0 if bare == text else 1 if bare.startswith(text) else 2].append(id_)
        return [id_ for tier in tiers for id_ in tier][:limit]

    def _found(self, seen: _Seen, ids: Sequence[int]) -> tuple[FoundToken, ...]:
        """Each token with what it would have taken to be chosen."""
        final, edited = seen.outcome.final.ranked(), seen.outcome.edited
        assert final.ids is not None  # `ranked` returns the sorted form
        reached: list[float] = np.minimum(
            final.weights.astype(np.float64).cumsum() / final.total, 1.0
        ).tolist()
        bounds = [0.0, *reached]
        place_of = {id_: place for place, id_ in enumerate(final.ids.tolist())}
        own = edited.at(np.array(ids, dtype=np.int64)).tolist()
        found = []
        for candidate, logit in zip(self._describe(Lookup(seen.outcome, ids)), own, strict=True):
            place = place_of.get(candidate.id)
            found.append(
                FoundToken(
                    candidate=candidate,
                    draw_from=None if place is None else bounds[place],
                    draw_to=None if place is None else bounds[place + 1],
                    bias_to_lead=edited.best - logit if logit > -math.inf else None,
                )
            )
        return tuple(found)

    def _note(self, seen: _Seen) -> str:
        """What is uncertain about a step as it was: by its state, or by its record."""
        reply, index = seen.step.reply, seen.step.index
        if seen.before.note or index >= len(reply.probs):
            return seen.before.note
        now = float(seen.outcome.final.probs(np.array([reply.ids[index]]))[0])
        if abs(now - reply.probs[index]) <= SAME:
            return ""
        return (
            f"the record says {reply.probs[index]:.4f} for the token taken and this {now:.4f};"
            " the reply may have been written on another machine or in another dtype"
        )

    def _check_ids(self, ids: Iterable[int]) -> list[int]:
        size = self._runtime.facts.vocab_size
        known = list(ids)
        for id_ in known:
            if not 0 <= id_ < size:
                raise EngineError(f"there is no token {id_}; ids go from 0 to {size - 1}")
        return known
