"""Replies on standard output while they are written or searched for: as text, or as JSON lines."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import EngineError
from chatapp.chat.thinking import ThinkingWatch
from chatapp.commands.output import plain, tell, write, write_json
from chatapp.commands.running import follow

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.chat.generation import TokenStep
    from chatapp.chat.sampling import SamplingParams
    from chatapp.chat.search import BeamEvent, ContrastiveEvent
    from chatapp.chat.thinking import Thinking
    from chatapp.session.protocols import Running


class TextReplies:
    """Replies as text, one below the other; several stand behind lines with their numbers.

    The first one streams, those after it are held until the ones before are complete.
    """

    def __init__(self, count: int = 1) -> None:
        self._held = [""] * count
        self._ended = [False] * count
        self._shown = -1
        self._last = "\n"
        self._show_next()

    def start(self, column: int, reply: Reply, thinking: Thinking | None) -> None:
        """Nothing is written before the first token."""

    def token(self, column: int, step: TokenStep) -> None:
        self.text(step.record.text, column)

    def text(self, text: str, column: int = 0) -> None:
        if column != self._shown:
            self._held[column] += text
        elif text:
            write(text, end="")
            self._last = text[-1]

    def end(self, column: int = 0, reply: Reply | None = None) -> None:
        self._ended[column] = True
        while self._shown < len(self._held) and self._ended[self._shown]:
            if self._last != "\n":
                self.text("\n", self._shown)
            self._show_next()

    def _show_next(self) -> None:
        self._shown += 1
        count = len(self._held)
        if self._shown < count:
            if count > 1:
                write(heading(self._shown, count))
            self.text(self._held[self._shown], self._shown)


class JsonReplies:
    """Replies as JSON lines, as they come; every line tells which of several it belongs to."""

    def __init__(self, count: int = 1) -> None:
        self._sampling: list[SamplingParams | None] = [None] * count
        self._watches = [ThinkingWatch()] * count

    def start(self, column: int, reply: Reply, thinking: Thinking | None) -> None:
        from chatapp.chat.jsonlines import start_json

        self._watches[column] = ThinkingWatch(thinking)
        self._sampling[column] = sampling = reply.sampling[-1].sampling
        self._write(column, start_json(reply, sampling))

    def token(self, column: int, step: TokenStep) -> None:
        from chatapp.chat.jsonlines import token_json

        thinks = self._watches[column].push(step.record.text)
        changed = step.sampling if step.sampling != self._sampling[column] else None
        self._sampling[column] = step.sampling or self._sampling[column]
        line = token_json(step.record, changed)
        if thinks:
            line["thinking"] = True
        if step.trace is not None:
            line["trace"] = plain(step.trace)
        self._write(column, line)

    def end(self, column: int, reply: Reply) -> None:
        from chatapp.chat.jsonlines import end_json

        self._write(column, end_json(reply))

    def _write(self, column: int, value: dict[str, Any]) -> None:
        which = {"choice": column} if len(self._sampling) > 1 else {}
        write_json({"type": value["type"], **which, **value})


async def write_replies(
    events: AsyncIterable[Any], reply: Callable[[int], Reply], *, count: int = 1, as_json: bool
) -> list[Reply]:
    """Write replies as they come. Returns them; a failed one has its error.

    `events`: those of a turn, of a generation, or of several replies side by side. `reply`: one of
    them as far as it has come, by its place.
    """
    from chatapp.chat.generation import GenerationEnd, PromptRead, TokenStep
    from chatapp.chat.search import ColumnEvent
    from chatapp.session.saving import SaveFailed
    from chatapp.session.session import ReplyEnded

    writer = JsonReplies(count) if as_json else TextReplies(count)

    def take(event: Any) -> None:
        column = 0
        if isinstance(event, ColumnEvent):
            column, event = event.column, event.event
        match event:
            case SaveFailed(message):
                tell(message)
            case PromptRead():
                if event.note:
                    tell(event.note)
                for place in range(count):
                    writer.start(place, reply(place), event.thinking)
            case TokenStep():
                writer.token(column, event)
            case GenerationEnd() | ReplyEnded():
                ended = reply(column)
                writer.end(column, ended)
                notice = event.notice if isinstance(event, ReplyEnded) else event.message
                if notice and not ended.error:
                    tell(f"reply {column + 1}: {notice}" if count > 1 else notice)

    await follow(events, take)
    return [reply(place) for place in range(count)]


async def write_search(
    search: Running[BeamEvent] | Running[ContrastiveEvent],
    decoder: str,
    model: str,
    *,
    as_json: bool,
) -> bool:
    """Write what a search finds, and return whether it found anything. Raises EngineError.

    As JSON a beam search has one line a level ("beam_step", with every extension that was looked
    at), a contrastive search one line a token with the candidates it weighed.
    """
    from chatapp.chat.generation import PromptRead
    from chatapp.chat.search import BeamEnd, BeamStep, ContrastiveEnd, ContrastiveStep

    found: list[str] = []
    shown = TextReplies()

    def take(event: Any) -> None:
        line: dict[str, Any]
        match event:
            case PromptRead():
                line = {
                    "type": "start",
                    "model": model,
                    "decoder": decoder,
                    "prompt_tokens": len(event.prompt_ids),
                    "cached_tokens": event.cached_tokens,
                    "prompt_ids": event.prompt_ids,
                }
            case BeamStep():
                extensions = [_with_token(one) for one in event.extensions]
                line = {"type": "beam_step", "index": event.index, "extensions": extensions}
            case ContrastiveStep():
                found.append(event.text)
                token = event.candidates[event.chosen].token
                line = {
                    "type": "token",
                    "index": event.index,
                    "id": token.id,
                    "token": token.token,
                    "bytes": list(token.bytes),
                    "text": event.text,
                    "candidates": [_with_token(one) for one in event.candidates],
                }
                if not as_json:
                    shown.text(event.text)
            case ContrastiveEnd():
                line = end(event, event.reason, "".join(found), len(found))
                if not as_json:
                    shown.end()
            case BeamEnd(hypotheses):
                found.extend(one.text for one in hypotheses)
                best = hypotheses[0] if hypotheses else None
                line = (
                    end(event, best.reason, best.text, len(best.ids), search_ended=event.reason)
                    if best
                    else end(event, None, "", 0, search_ended=event.reason)
                )
                line["hypotheses"] = [plain(one) for one in hypotheses]
                for one in line["hypotheses"]:
                    one["finish_reason"] = one.pop("reason")
                for place, one in enumerate(() if as_json else hypotheses):
                    if len(hypotheses) > 1:
                        write(heading(place, len(hypotheses), f" · score {one.score:.4f}"))
                    write(one.text, end="" if one.text.endswith("\n") else "\n")
        if as_json:
            write_json(line)

    def end(event: Any, reason: object, text: str, tokens: int, **more: object) -> dict[str, Any]:
        if event.reason == "error":
            raise EngineError(event.message)
        if event.message:
            tell(event.message)
        told = {"text": text, "completion_tokens": tokens, "seconds": event.seconds}
        return {"type": "end", "finish_reason": reason, **more, **told}

    await follow(search, take)
    return bool(found)


def _with_token(one: Any) -> dict[str, Any]:
    """An extension or a candidate, its token's id and text among its own fields."""
    return {**plain(one), "id": one.token.id, "token": one.token.token}


def heading(place: int, count: int, about: str = "") -> str:
    """The line before one of several replies."""
    blank = "\n" if place else ""
    return f"{blank}── {place + 1} of {count}{about} ──"
