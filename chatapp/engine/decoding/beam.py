"""Beam search: keep the few best continuations alive, and show what was dropped.

The rules are those of transformers' `generate(num_beams=…, do_sample=False)`, which follow the
usual definition:

1. Every living beam is extended by every token; of all extensions the (end tokens + 1) · beams with
   the largest sum of logprobs are looked at, so that enough are left when the best ones end.
2. Those that end become hypotheses if they are among the best `num_beams` extensions; a hypothesis'
   score is its sum of logprobs / length ** length_penalty. The best `num_beams` are kept.
3. Of those that don't end the best `num_beams` live on.

Sums are added up in float32, as transformers does, so that near ties fall alike.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace

import numpy as np

from chatapp.chat.facts import IsCancelled
from chatapp.chat.record import FinishReason
from chatapp.chat.search import (
    Beam,
    BeamEnd,
    BeamEvent,
    BeamExtension,
    BeamOptions,
    BeamStep,
    BeamStop,
    ExtensionFate,
    Hypothesis,
)
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.decoding.searching import Search, check_logits, log_softmax
from chatapp.engine.runtimes.base import Floats, Reading, Rows, Runtime


class BeamSearch(Search):
    """The most probable continuation of a prompt; `events` yields a `BeamStep` for each level."""

    def __init__(
        self,
        runtime: Runtime,
        prompt_ids: Sequence[int],
        options: BeamOptions,
        end_ids: Sequence[int],
        cancelled: IsCancelled,
    ) -> None:
        super().__init__(runtime, prompt_ids, options.max_tokens, cancelled)
        self._options = options
        self._end_ids = tuple(end_ids)
        self._beams: tuple[Beam, ...] = (Beam((), 0, 0.0, 0.0),)
        self._finished: tuple[Hypothesis, ...] = ()

    def steps(self, rows: Rows, prompt: Reading) -> Generator[BeamEvent, None, str]:
        logits, totals = prompt.logits, np.zeros(1, dtype=np.float32)
        for length in range(1, self.limit.longest + 1):
            if self.cancelled():
                break
            check_logits(logits)
            step = self._choose(logits, totals, length)
            self._beams, self._finished = step.beams, step.finished
            self.last_at = time.monotonic()
            yield step
            totals = np.array([beam.total_logprob for beam in step.beams], dtype=np.float32)
            if (reason := self._stop(totals, length)) is not None:
                return reason
            rows.select([beam.parent for beam in step.beams])
            logits = rows.read([beam.ids[-1] for beam in step.beams]).logits
        return BeamStop.CANCELLED

    def end(self, reason: str, seconds: float, words: str) -> BeamEnd:
        """The best of what is finished, and of what was alive when it was cut."""
        found = self._finished
        if reason in (BeamStop.CANCELLED, BeamStop.ERROR):
            cut = FinishReason(reason)
            found += tuple(self._hypothesis(one.ids, one, cut) for one in self._beams if one.ids)
        return BeamEnd(_best(found, self._options.num_return), BeamStop(reason), seconds, words)

    def _choose(self, logits: Floats, totals: Floats, length: int) -> BeamStep:
        """Extend every beam, and decide what lives, what is finished and what is dropped.

        `logits`: (beams, V). `totals`: the beams' sums of logprobs, (beams,).
        """
        most = self._options.num_beams
        extensions = self._extend(logits, totals, length)
        paths = [(*self._beams[one.parent].ids, one.token.id) for one in extensions]
        ended = [
            self._hypothesis(path, one, self._reason(one.token.id))
            for path, one in zip(paths[:most], extensions[:most], strict=True)
            if one.ends
        ]
        finished = _best((*self._finished, *ended), most)
        finished_paths = {one.ids for one in finished}
        beams: list[Beam] = []
        for place, (path, one) in enumerate(zip(paths, extensions, strict=True)):
            if path in finished_paths:
                extensions[place] = replace(one, fate=ExtensionFate.FINISHED)
            elif not one.ends and len(beams) < most:
                extensions[place] = replace(one, fate=ExtensionFate.KEPT, beam=len(beams))
                beams.append(Beam(path, one.parent, one.total_logprob, one.score))
        return BeamStep(length - 1, tuple(extensions), tuple(beams), finished)

    def _extend(self, logits: Floats, totals: Floats, length: int) -> list[BeamExtension]:
        """The best extensions of all beams by any token, best first, none of them kept yet."""
        logprobs = log_softmax(logits)
        sums = (logprobs + totals[:, None]).ravel()
        count = min(max(2, 1 + len(self._end_ids)) * self._options.num_beams, sums.size)
        best = np.argpartition(-sums, count - 1)[:count]
        best = best[np.lexsort((best, -sums[best]))]
        scores = sums[best] / np.float32(length**self._options.length_penalty)
        extensions = []
        for flat, own, total, score in zip(
            best.tolist(),
            logprobs.ravel()[best].tolist(),
            sums[best].tolist(),
            scores.tolist(),
            strict=True,
        ):
            parent, token_id = divmod(flat, logits.shape[-1])
            extensions.append(
                BeamExtension(
                    parent=parent,
                    token=self.runtime.tokenizer.piece(token_id),
                    logprob=own,
                    total_logprob=total,
                    score=score,
                    ends=length == self.limit.longest or token_id in self._end_ids,
                    fate=ExtensionFate.DROPPED,
                )
            )
        return extensions

    def _stop(self, totals: Floats, length: int) -> BeamStop | None:
        """Whether the search is over.

        `totals`: the living beams' sums of logprobs, best first, (beams,).
        """
        if length == self.limit.longest:
            return BeamStop(self.limit.reason.value)
        if totals.size == 0:
            return BeamStop.SETTLED
        if len(self._finished) < self._options.num_beams:
            return None
        # The best living beam as long as it is now: a rule of thumb, since it may score better yet.
        hoped_for = float(totals[0] / length**self._options.length_penalty)
        return None if hoped_for > self._finished[-1].score else BeamStop.SETTLED

    def _reason(self, token_id: int) -> FinishReason:
        return FinishReason.STOP if token_id in self._end_ids else self.limit.reason

    def _hypothesis(
        self, ids: tuple[int, ...], scored: Beam | BeamExtension, reason: FinishReason
    ) -> Hypothesis:
        text = ReplyText(self.runtime.tokenizer, self._end_ids)
        words = "".join(text.push(token_id).text for token_id in ids)
        if reason is not FinishReason.STOP:
            words += text.flush()
        return Hypothesis(ids, words, scored.total_logprob, scored.score, reason)


def _best(hypotheses: Iterable[Hypothesis], count: int) -> tuple[Hypothesis, ...]:
    """The ones with the largest scores, the earlier first among equals."""
    return tuple(sorted(hypotheses, key=lambda one: -one.score)[:count])
