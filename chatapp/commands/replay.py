"""`chatapp ask --replay FILE`: a recorded reply written again, id for id.

The file is what `ask --json` wrote, or an exported chat's JSON lines. Its start has the prompt's
ids, the seed and the sampling parameters, its tokens have the ids and every change of parameters;
with the same model on the same machine that gives the same reply. Several replies in one file are
replayed one after the other.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import ChatappError, EngineError
from chatapp.chat.record import SamplingSpan
from chatapp.chat.sampling import ParameterError, SamplingParams, read_table
from chatapp.commands.replies import write_replies
from chatapp.commands.running import DONE, Interrupts

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.commands.setup import Setup
    from chatapp.session.session import Session


class ReplayError(ChatappError):
    """A recording that cannot be read, or a reply that came out otherwise."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One reply as it was recorded."""

    model: str
    prompt_ids: tuple[int, ...]
    seed: int
    ids: tuple[int, ...]
    spans: tuple[SamplingSpan, ...]
    """The first one begins at 0."""


async def replay(
    setup: Setup, args: argparse.Namespace, recorded: tuple[Recorded, ...], interrupts: Interrupts
) -> int:
    """Write recorded replies again. Returns the exit status.

    Raises ReplayError: a reply came out otherwise; it says where.
    """
    top_logprobs = args.top_logprobs if args.json else 0
    async with setup.headless(keep=False, top_logprobs=top_logprobs) as session:
        for number, one in enumerate(recorded):
            where = f"reply {number + 1}: " if len(recorded) > 1 else ""
            reply = await _replay(session, one, interrupts, as_json=args.json)
            if interrupts.interrupted:
                return DONE
            if reply.error:
                raise EngineError(reply.error)
            if difference := _difference(one, reply):
                raise ReplayError(f"{where}{difference}")
    return DONE


async def _replay(
    session: Session, recorded: Recorded, interrupts: Interrupts, *, as_json: bool
) -> Reply:
    """Write one reply again."""
    from chatapp.chat.generation import GenerateOptions, GenerationEvent
    from chatapp.chat.prompt import Prompt
    from chatapp.session.growing import GrowingReply

    first, *later = recorded.spans
    options = GenerateOptions(
        sampling=first.sampling,
        seed=recorded.seed,
        max_tokens=len(recorded.ids),
        top_logprobs=session.top_logprobs,
        schedule=tuple(later),
    )
    growing = GrowingReply(replace(session.empty_reply(), seed=recorded.seed), first.sampling)
    generation = session.engine.generate(Prompt("", (), ids=recorded.prompt_ids), options)
    interrupts.stop_gently = generation.cancel

    async def grown() -> AsyncIterator[GenerationEvent]:
        async for event in generation:
            growing.take(event)
            yield event

    (reply,) = await write_replies(grown(), lambda _place: growing.reply(), as_json=as_json)
    return reply


def _difference(recorded: Recorded, reply: Reply) -> str:
    """Where a reply came out otherwise, in words; nothing where it didn't."""
    other = f"; {recorded.model} wrote it, and this is {reply.model}"
    hint = "" if reply.model == recorded.model else other
    for place, (record, id_) in enumerate(zip(reply.records, recorded.ids, strict=False)):
        if record.id != id_:
            now = f"now {record.id} {record.token!r}"
            return f"token {place} differs: recorded id {id_}, {now}{hint}"
    if len(reply.ids) < len(recorded.ids):
        return f"it ended after {len(reply.ids)} of {len(recorded.ids)} recorded tokens{hint}"
    return ""


def read_recorded(file: str) -> tuple[Recorded, ...]:
    """The replies in a file of JSON lines. Raises ReplayError."""
    try:
        # Not by splitlines: a token's text may hold other characters that end lines.
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ReplayError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ReplayError(f"{file} is not UTF-8 text") from None
    found: list[list[Mapping[str, Any]]] = []
    growing: dict[int, list[Mapping[str, Any]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            # Several replies written side by side tell theirs apart; others follow one another.
            kind, choice = value["type"], int(value.get("choice", 0))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ReplayError(f"{file}, line {number}: no line of a recorded reply") from None
        if kind == "start":
            growing[choice] = [value]
            found.append(growing[choice])
        elif choice not in growing:
            raise ReplayError(f"{file}, line {number}: there is no start before it")
        else:
            growing[choice].append(value)
    if not found:
        raise ReplayError(f"{file} holds no recorded reply; record one with: chatapp ask --json")
    return tuple(_read_reply(file, values) for values in found)


def _read_reply(file: str, values: list[Mapping[str, Any]]) -> Recorded:
    """One reply out of its lines."""
    start, *rest = values
    if "decoder" in start:
        raise ReplayError(f"{file}: a search draws nothing, so it needs no replay; ask again")
    try:
        tokens = [value for value in rest if value["type"] == "token"]
        spans = [SamplingSpan(0, _sampling(start["sampling"]))]
        spans += [
            SamplingSpan(place, _sampling(value["sampling"]))
            for place, value in enumerate(tokens)
            if place > 0 and "sampling" in value
        ]
        recorded = Recorded(
            model=str(start["model"]),
            prompt_ids=tuple(int(id_) for id_ in start["prompt_ids"]),
            seed=int(start["seed"]),
            ids=tuple(int(value["id"]) for value in tokens),
            spans=tuple(spans),
        )
    except (KeyError, TypeError, ValueError) as error:
        words = f"{error}" if isinstance(error, ParameterError) else "it lacks what a replay needs"
        raise ReplayError(f"{file}: {words}; record it with this chatapp's ask --json") from None
    if not recorded.prompt_ids or not recorded.ids:
        raise ReplayError(f"{file}: a reply without a prompt or tokens cannot be replayed")
    return recorded


def _sampling(values: Mapping[str, Any]) -> SamplingParams:
    """Parameters as `sampling_json` wrote them; a null bias was a ban. Raises ParameterError."""
    given = dict(values)
    biases = given.get("logit_bias", ())
    given["logit_bias"] = [[id_, -math.inf if bias is None else bias] for id_, bias in biases]
    return replace(SamplingParams(), **read_table(given))
