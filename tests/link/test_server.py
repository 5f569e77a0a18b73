"""How the engine's side shares one model between what is asked of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.link import messages
from chatapp.link.server import Server

PROMPT = Prompt("", (Turn("user", "hello"),), PromptFormat("plain", "{{ messages }}"))


class Scorer:
    """Stands in for the engine: keeps what tells it to stop."""

    cancelled: Callable[[], bool]
    kept_only: bool

    def score_prompt(
        self, _prompt: Prompt, _count: int, _report: Any, cancelled: Callable[[], bool], **how: Any
    ) -> Iterator[Any]:
        self.cancelled = cancelled
        self.kept_only = how["kept_only"]
        return iter(())


@pytest.mark.parametrize("background", [True, False])
def test_scoring_in_the_background_gives_way_to_other_work(background: bool) -> None:
    server, scorer = Server(io.BytesIO(), io.BytesIO()), Scorer()
    server._engine = scorer  # type: ignore[assignment]
    controls = Controls(SamplingParams())
    request = messages.ScorePromptRequest(
        request=1, prompt=PROMPT, top_logprobs=0, background=background
    )
    server._events_of(request, (controls,))
    assert scorer.kept_only is background
    assert not scorer.cancelled()
    server._long.put(messages.ScoreTextRequest(request=2, text="x", top_logprobs=0))
    assert scorer.cancelled() is background
    controls.cancel()
    assert scorer.cancelled()
