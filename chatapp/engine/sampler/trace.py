"""The chain seen stage by stage: for chosen tokens, the logit and probability after each.

Nothing is computed another way than for the draw: the trace reads the sets that `run_chain` left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from chatapp.chat.sampling import SamplingParams
from chatapp.chat.trace import StageTrace, StepTrace, TracedToken
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.chain import ChainState, Outcome, Snapshot, StepContext, run_chain
from chatapp.engine.sampler.record import column


def trace(
    logits: torch.Tensor,
    params: SamplingParams,
    context: StepContext,
    snapshot: Snapshot,
    ids: Sequence[int],
) -> StepTrace:
    """Run a step again from the state it had, and tell it stage by stage.

    Args:
        logits: (V,), as `run_chain` takes them.
        params: what the step was, or would be, drawn with.
        context: the ids before the step.
        snapshot: the chain's state before the step; random stages draw the same numbers again.
        ids: the tokens to follow, each once and below V.

    Raises:
        BadLogits, NothingLeft: as `run_chain`.
    """
    return trace_outcome(run_chain(logits, params, context, ChainState.restore(snapshot)), ids)


def trace_outcome(outcome: Outcome, ids: Sequence[int]) -> StepTrace:
    """The same for a step that has just been run."""
    asked = torch.tensor(list(ids), dtype=torch.int64)
    stages = [_describe("model", asked, None, outcome.model)]
    before = outcome.model
    logits = outcome.model.logits.clone() if outcome.edits else outcome.model.logits
    for edit in outcome.edits:
        edit.apply_to(logits)
        after = Alive(logits.clone())
        setting = None if edit.stage == "bias" else edit.setting
        stages.append(_describe(edit.stage, asked, before, after, setting=setting))
        before = after
    stages += [
        _describe(
            stage.name,
            asked,
            stage.before,
            stage.after,
            setting=stage.setting,
            threshold=stage.cut.threshold,
            temperature=stage.cut.temperature,
            drawn=stage.cut.drawn,
        )
        for stage in outcome.stages
    ]
    return StepTrace(tuple(stages))


def _describe(
    name: str,
    asked: torch.Tensor,
    before: Alive | None,
    after: Alive,
    *,
    setting: float | None = None,
    threshold: float | None = None,
    temperature: float | None = None,
    drawn: float | None = None,
) -> StageTrace:
    """One column: the tokens asked for, and the rest as one number."""
    seen = column(after, asked)
    old: list[float] = before.at(asked).tolist() if before is not None else seen.logits
    tokens = tuple(
        TracedToken(
            id=id_,
            logit=logit if logit > -math.inf else None,
            prob=prob,
            removed=logit == -math.inf and was > -math.inf,
        )
        for id_, logit, prob, was in zip(asked.tolist(), seen.logits, seen.probs, old, strict=True)
    )
    return StageTrace(
        stage=name,
        setting=setting,
        threshold=threshold,
        temperature=temperature,
        drawn=drawn,
        tokens=tokens,
        other_prob=seen.other_prob,
        alive=after.count,
    )
