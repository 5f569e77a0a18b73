"""What the screen says of a model behind a server: what is told, and that the rest is not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from chatapp.chat.record import TokenRecord
from chatapp.chat.served import SERVERS
from chatapp.engine.served.kinds import Weighed
from chatapp.engine.served.record import make_record
from chatapp.ui.services import ModelState
from chatapp.ui.widgets.candidates import CandidateList
from chatapp.ui.widgets.header import Header, Status
from chatapp.ui.widgets.token_panel import TokenSummary, how_chosen
from tests.ui.host import ask, make_app, notice, ready, until
from tests.ui.scripted import FACTS, ScriptedEngine
from tests.ui.test_token_panel import TALL, WIDE, Host, lines

TOP = tuple(Weighed(b, math.log(p)) for b, p in ((b"Red", 0.5), (b"Blue", 0.25)))


def served(runtime: str, token: Weighed, vocabulary: int = 0) -> TokenRecord:
    return make_record(token, token.bytes.decode(), 0, 0.7, SERVERS[runtime], 2, vocabulary)


RED = replace(TOP[0], top=TOP)
RARE = Weighed(b"Mauve", math.log(0.01), top=TOP)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (served("vLLM", RED), "Model probability as the server gives it; no trace"),
        (served("SGLang", RED), "Probability after penalties and temperature as the server gives"),
        (served("server", Weighed(b"Red", math.nan)), "The server tells no probability"),
    ],
)
async def test_the_brief_panel_shows_what_is_told(record: TokenRecord, words: str) -> None:
    assert how_chosen(record).startswith(words)
    app = Host((record,))
    async with app.run_test(size=(WIDE, TALL)):
        app.panel.brief = True
        shown = "\n".join(lines(app.panel.query_one(TokenSummary)))
        told = not math.isnan(record.logprob) or not math.isnan(record.tempered_prob)
        assert ("50.0 %" in shown) is told


async def test_every_number_that_is_not_told_is_unknown() -> None:
    app = Host((served("vLLM", RARE),))
    async with app.run_test(size=(WIDE, TALL)) as pilot:
        await pilot.pause()
        summary = "\n".join(lines(app.panel.query_one(TokenSummary)))
        for words in ("model 1.0 %", "T 0.7 n/a", "final n/a", "rank >2", "≥ 1.5", "P(end) n/a"):
            assert words in " ".join(summary.split()), words
        assert "random number n/a" in summary
        assert "id n/a" in summary
        table = "\n".join(lines(app.panel.query_one(CandidateList)))
        assert "all others" in table
        assert "bar: model" in table
        assert "as the server gives it; no trace" in table
        # The remainder is what the probabilities leave.
        others = next(line for line in table.splitlines() if "all others" in line)
        assert "24.0" in others


async def test_the_header_says_what_runs_and_no_context_that_nobody_told() -> None:
    facts = replace(
        FACTS, runtime="Ollama", weight_format="", device="gpu.lan:11434", context_length=0
    )
    header = Header()
    status = Status(state=ModelState.READY, facts=facts, context_used=None)
    assert [part.plain for part in _parts(header, status)] == [
        "Scripted-1M",
        "Ollama",
        "gpu.lan:11434",
        "T 0.00",
    ]
    status = replace(status, facts=replace(facts, context_length=4096))
    assert "ctx of 4096" in [part.plain for part in _parts(header, status)]
    assert "ctx 12" in [
        part.plain for part in _parts(header, replace(status, facts=facts, context_used=12))
    ]


def _parts(header: Header, status: Status) -> list[object]:
    header.set_reactive(Header.status, status)
    return [*header._left(), *header._right()]


async def test_messages_are_not_scored_where_a_server_runs_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = ScriptedEngine("Yes.")
    monkeypatch.setattr("tests.ui.scripted.FACTS", replace(FACTS, runtime="vLLM"))
    app = make_app(engine, score_prompt_tokens=100)
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "hi")
        await until(pilot, lambda: not chat.turns.busy, "the end")
        await pilot.pause()
        assert "not scored" not in notice(chat)
