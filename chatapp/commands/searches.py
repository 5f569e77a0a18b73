"""`chatapp ask --decoder beam|contrastive`: replies that are searched for, not drawn.

As JSON a beam search has one line a level ("beam_step", with every extension that was looked at),
a contrastive search one line a token with the candidates it weighed; both end like a reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import EngineError
from chatapp.commands.output import plain, tell, write, write_json
from chatapp.commands.replies import TextReplies, heading
from chatapp.commands.running import follow

if TYPE_CHECKING:
    from chatapp.chat.search import BeamEvent, ContrastiveEvent
    from chatapp.session.protocols import Running


async def write_search(
    search: Running[BeamEvent] | Running[ContrastiveEvent],
    decoder: str,
    model: str,
    *,
    as_json: bool,
) -> bool:
    """Write what a search finds, and return whether it found anything. Raises EngineError."""
    from chatapp.chat.generation import PromptRead
    from chatapp.chat.search import BeamEnd, BeamStep, ContrastiveEnd, ContrastiveStep

    found: list[str] = []
    shown = TextReplies()

    def take(event: Any) -> None:
        match event:
            case ContrastiveStep():
                found.append(event.text)
            case BeamEnd():
                found.extend(one.text for one in event.hypotheses)
        if isinstance(event, BeamEnd | ContrastiveEnd):
            if event.reason == "error":
                raise EngineError(event.message)
            if event.message:
                tell(event.message)
        if as_json:
            write_json(line_of(event))
            return
        match event:
            case ContrastiveStep():
                shown.text(event.text)
            case ContrastiveEnd():
                shown.end()
            case BeamEnd(hypotheses):
                for place, one in enumerate(hypotheses):
                    if len(hypotheses) > 1:
                        write(heading(place, len(hypotheses), f" · score {one.score:.4f}"))
                    write(one.text, end="" if one.text.endswith("\n") else "\n")

    def line_of(event: Any) -> dict[str, Any]:
        match event:
            case PromptRead():
                return {
                    "type": "start",
                    "model": model,
                    "decoder": decoder,
                    "prompt_tokens": len(event.prompt_ids),
                    "cached_tokens": event.cached_tokens,
                    "prompt_ids": event.prompt_ids,
                }
            case BeamStep():
                extensions = [_with_token(one) for one in event.extensions]
                return {"type": "beam_step", "index": event.index, "extensions": extensions}
            case ContrastiveStep():
                token = event.candidates[event.chosen].token
                return {
                    "type": "token",
                    "index": event.index,
                    "id": token.id,
                    "token": token.token,
                    "bytes": list(token.bytes),
                    "text": event.text,
                    "candidates": [_with_token(one) for one in event.candidates],
                }
            case BeamEnd():
                hypotheses = [plain(one) for one in event.hypotheses]
                for one in hypotheses:
                    one["finish_reason"] = one.pop("reason")
                best = event.hypotheses[0] if event.hypotheses else None
                return {
                    "type": "end",
                    "finish_reason": best.reason if best else None,
                    "search_ended": event.reason,
                    "text": best.text if best else "",
                    "completion_tokens": len(best.ids) if best else 0,
                    "seconds": event.seconds,
                    "hypotheses": hypotheses,
                }
        return {
            "type": "end",
            "finish_reason": event.reason,
            "text": "".join(found),
            "completion_tokens": len(found),
            "seconds": event.seconds,
        }

    await follow(search, take)
    return bool(found)


def _with_token(one: Any) -> dict[str, Any]:
    """An extension or a candidate, its token's id and text among its own fields."""
    return {**plain(one), "id": one.token.id, "token": one.token.token}
