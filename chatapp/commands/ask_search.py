"""`chatapp ask --decoder beam|contrastive`: replies that are searched for, not drawn.

As JSON a beam search has one line a level ("beam_step", with every extension that was looked at),
a contrastive search one line a token with the candidates it weighed; both end like a reply.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING

from chatapp.chat.errors import EngineError, UsageError
from chatapp.commands.ask import start_session
from chatapp.commands.interrupts import Interrupts
from chatapp.commands.question import Question, prompt_with, tell_files
from chatapp.commands.reply_writers import JsonWriter, TextWriter
from chatapp.commands.status import DONE, FAILED

if TYPE_CHECKING:
    from chatapp.chat.generation import PromptRead
    from chatapp.chat.jsonlines import JsonObject
    from chatapp.chat.search import (
        BeamEnd,
        BeamStep,
        ContrastiveEnd,
        ContrastiveStep,
        Hypothesis,
    )
    from chatapp.commands.setup import Setup
    from chatapp.session.session import Session


async def ask_beam(
    setup: Setup, args: argparse.Namespace, question: Question, interrupts: Interrupts
) -> int:
    """Search with beams and write the best. Returns the exit status."""
    from chatapp.chat.facts import Progress
    from chatapp.chat.generation import PromptRead
    from chatapp.chat.search import BeamEnd, BeamOptions, BeamStep, BeamStop, SearchError
    from chatapp.commands.progress import ProgressLine

    try:
        options = BeamOptions(
            num_beams=args.beams,
            length_penalty=args.length_penalty,
            max_tokens=setup.settings.max_tokens or BeamOptions().max_tokens,
            num_return=args.n,
        )
    except SearchError as error:
        raise UsageError(str(error)) from None
    line = ProgressLine(sys.stderr)
    writer = JsonWriter(sys.stdout) if args.json else None
    async with setup.headless(keep=False) as session:
        await start_session(session, args)
        await tell_files(session, question)
        search = session.engine.beam(prompt_with(session, question.message), options)
        interrupts.stop_gently = search.cancel
        async for event in search:
            match event:
                case Progress():
                    line.update(event)
                case PromptRead():
                    line.close()
                    if writer:
                        writer.line(_start(session, event, "beam"))
                case BeamStep():
                    if writer:
                        writer.line(_beam_step(event))
                case BeamEnd():
                    line.close()
                    if event.reason is BeamStop.ERROR:
                        raise EngineError(event.message)
                    if event.message:
                        print(f"chatapp: {event.message}", file=sys.stderr)
                    if writer:
                        writer.line(_beam_end(event))
                    else:
                        _print_hypotheses(event.hypotheses)
                    return DONE if event.hypotheses else FAILED
    raise EngineError("the search did not end")


async def ask_contrastive(
    setup: Setup, args: argparse.Namespace, question: Question, interrupts: Interrupts
) -> int:
    """Search contrastively and write what comes. Returns the exit status."""
    from chatapp.chat.facts import Progress
    from chatapp.chat.generation import PromptRead
    from chatapp.chat.record import FinishReason
    from chatapp.chat.search import (
        ContrastiveEnd,
        ContrastiveOptions,
        ContrastiveStep,
        SearchError,
    )
    from chatapp.commands.progress import ProgressLine

    try:
        options = ContrastiveOptions(
            top_k=args.contrastive_k,
            penalty_alpha=args.penalty_alpha,
            max_tokens=setup.settings.max_tokens or ContrastiveOptions().max_tokens,
        )
    except SearchError as error:
        raise UsageError(str(error)) from None
    line = ProgressLine(sys.stderr)
    text = TextWriter(sys.stdout)
    writer = JsonWriter(sys.stdout) if args.json else None
    written: list[str] = []
    async with setup.headless(keep=False) as session:
        await start_session(session, args)
        await tell_files(session, question)
        stop = session.options().stop
        search = session.engine.contrastive(prompt_with(session, question.message), options, stop)
        interrupts.stop_gently = search.cancel
        async for event in search:
            match event:
                case Progress():
                    line.update(event)
                case PromptRead():
                    line.close()
                    if writer:
                        writer.line(_start(session, event, "contrastive"))
                case ContrastiveStep():
                    written.append(event.text)
                    if writer:
                        writer.line(_contrastive_token(event))
                    else:
                        text.text(event.text)
                case ContrastiveEnd():
                    line.close()
                    if event.reason is FinishReason.ERROR:
                        raise EngineError(event.message)
                    if event.message:
                        print(f"chatapp: {event.message}", file=sys.stderr)
                    if writer:
                        writer.line(_contrastive_end(event, written))
                    text.end()
                    return DONE if written else FAILED
    raise EngineError("the search did not end")


def _print_hypotheses(hypotheses: tuple[Hypothesis, ...]) -> None:
    """The texts, best first; several stand behind lines with their scores."""
    for place, hypothesis in enumerate(hypotheses):
        if len(hypotheses) > 1:
            blank = "\n" if place else ""
            score = f"score {hypothesis.score:.4f}"
            print(f"{blank}── {place + 1} of {len(hypotheses)} · {score} ──", flush=True)
        writer = TextWriter(sys.stdout)
        writer.text(hypothesis.text)
        writer.end()


def _start(session: Session, read: PromptRead, decoder: str) -> JsonObject:
    assert session.facts is not None  # the prompt was read by a model
    return {
        "type": "start",
        "model": session.facts.name,
        "decoder": decoder,
        "prompt_tokens": len(read.prompt_ids),
        "cached_tokens": read.cached_tokens,
        "prompt_ids": list(read.prompt_ids),
    }


def _beam_step(step: BeamStep) -> JsonObject:
    return {
        "type": "beam_step",
        "index": step.index,
        "extensions": [
            {
                "parent": one.parent,
                "id": one.token.id,
                "token": one.token.token,
                "logprob": _finite(one.logprob),
                "total_logprob": _finite(one.total_logprob),
                "score": _finite(one.score),
                "ends": one.ends,
                "fate": one.fate.value,
                "beam": one.beam,
            }
            for one in step.extensions
        ],
    }


def _beam_end(end: BeamEnd) -> JsonObject:
    best = end.hypotheses[0] if end.hypotheses else None
    return {
        "type": "end",
        "finish_reason": best.reason.value if best else None,
        "search_ended": end.reason.value,
        "text": best.text if best else "",
        "completion_tokens": len(best.ids) if best else 0,
        "seconds": end.seconds,
        "hypotheses": [
            {
                "ids": list(one.ids),
                "text": one.text,
                "total_logprob": _finite(one.total_logprob),
                "score": _finite(one.score),
                "finish_reason": one.reason.value,
            }
            for one in end.hypotheses
        ],
    }


def _contrastive_token(step: ContrastiveStep) -> JsonObject:
    chosen = step.candidates[step.chosen]
    return {
        "type": "token",
        "index": step.index,
        "id": chosen.token.id,
        "token": chosen.token.token,
        "bytes": list(chosen.token.bytes),
        "text": step.text,
        "candidates": [
            {
                "id": one.token.id,
                "token": one.token.token,
                "model_prob": one.model_prob,
                "penalty": one.penalty,
                "closest": one.closest,
                "score": one.score,
            }
            for one in step.candidates
        ],
    }


def _contrastive_end(end: ContrastiveEnd, written: list[str]) -> JsonObject:
    return {
        "type": "end",
        "finish_reason": end.reason.value,
        "text": "".join(written),
        "completion_tokens": len(written),
        "seconds": end.seconds,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
