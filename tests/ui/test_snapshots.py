"""What it looks like: a few pictures, narrow and wide. `pytest --snapshot-update` renews them."""

from __future__ import annotations

from typing import Any

from textual.pilot import Pilot

from tests.ui.host import ScriptedModels, ask, make_app, ready, say, until
from tests.ui.scripted import ScriptedEngine

REPLY = (
    "The **primary** colours are *red*, `blue` and yellow.\n\n"
    "1. Red is warm\n2. Blue is cold\n\n"
    "```python\ndef mix(a, b):\n    return a + b\n```\n\n"
    "| colour | wave |\n|---|---|\n| red | 700 nm |\n| blue | 450 nm |\n"
)


def test_a_finished_reply_on_a_wide_screen(snap_compare: Any) -> None:
    async def before(pilot: Pilot[Any]) -> None:
        chat = await ready(pilot)
        await ask(pilot, "Name the primary colours.")
        chat.prompt.cursor_blink = False

    app = make_app(ScriptedEngine(REPLY))
    assert snap_compare(app, terminal_size=(120, 40), run_before=before)


def test_a_reply_as_tokens_on_a_small_screen(snap_compare: Any) -> None:
    async def before(pilot: Pilot[Any]) -> None:
        chat = await ready(pilot)
        await ask(pilot, "Name the primary colours.")
        chat.transcript.focus()
        await pilot.press("ctrl+t", "left", "up", "up")

    app = make_app(ScriptedEngine(REPLY))
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_a_reply_that_streams(snap_compare: Any) -> None:
    engine = ScriptedEngine(REPLY, held=True)

    async def before(pilot: Pilot[Any]) -> None:
        chat = await ready(pilot)
        await say(pilot, "Name the primary colours.")
        engine.allow(12)
        await until(pilot, lambda: chat.turns.tokens == 12, "twelve tokens")
        await until(pilot, lambda: "red" in "".join(chat.transcript.text_rows), "them on screen")
        chat.prompt.cursor_blink = False

    assert snap_compare(make_app(engine), terminal_size=(80, 24), run_before=before)


def test_the_first_start(snap_compare: Any) -> None:
    async def before(pilot: Pilot[Any]) -> None:
        app = pilot.app
        await until(pilot, lambda: app.screen.query("#download-progress"), "the screen")
        progress = app.screen.query_one("#download-progress")
        await until(pilot, lambda: "50 %" in str(getattr(progress, "visual", "")), "progress")

    app = make_app(ScriptedEngine(), models=ScriptedModels(here=False))
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)
