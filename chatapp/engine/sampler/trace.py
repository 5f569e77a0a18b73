"""The chain seen stage by stage: for chosen tokens, the logit and probability after each.

Nothing is computed another way than for the draw: the trace reads the sets that `run_chain` left.
"""

from __future__ import annotations

import math

from chatapp.chat.inspection import StageTrace, StepTrace, TracedToken
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.lookup import Lookup


def trace_tokens(lookup: Lookup) -> StepTrace:
    outcome = lookup.outcome
    stages = [_describe("model", lookup, None, outcome.model)]
    logits = outcome.model.logits.copy() if outcome.edits else outcome.model.logits
    for edit in outcome.edits:
        edit.apply_to(logits)
        after = outcome.edited if edit is outcome.edits[-1] else Alive(logits.copy())
        setting = None if edit.name in ("bias", "grammar") else edit.setting
        stages.append(_describe(edit.name, lookup, stages[-1], after, setting=setting))
    for stage in outcome.stages:
        stages.append(
            _describe(
                stage.name,
                lookup,
                stages[-1],
                stage.after,
                setting=stage.setting,
                threshold=stage.cut.threshold,
                temperature=stage.cut.temperature,
                drawn=stage.cut.drawn,
            )
        )
    return StepTrace(tuple(stages))


def _describe(
    name: str,
    lookup: Lookup,
    before: StageTrace | None,
    after: Alive,
    *,
    setting: float | None = None,
    threshold: float | None = None,
    temperature: float | None = None,
    drawn: float | None = None,
) -> StageTrace:
    """One column: the tokens asked for, and the rest as one number."""
    column = lookup.column(after)
    if before is None:
        tokens = tuple(
            TracedToken(id_, logit if logit > -math.inf else None, prob, removed=False)
            for id_, logit, prob in zip(lookup.ids, column.logits, column.probs, strict=True)
        )
    else:
        tokens = tuple(map(_after, before.tokens, column.logits, column.probs))
    return StageTrace(
        stage=name,
        setting=setting,
        threshold=threshold,
        temperature=temperature,
        drawn=drawn,
        tokens=tokens,
        other_prob=column.other_prob,
        alive=after.count,
    )


def _after(before: TracedToken, logit: float, prob: float) -> TracedToken:
    if logit > -math.inf:
        return TracedToken(before.id, logit, prob, removed=False)
    if before.logit is None and not before.removed:
        return before  # out of play since long; a new value would only say it again
    return TracedToken(before.id, None, 0.0, removed=before.logit is not None)
