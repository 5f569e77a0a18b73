"""Text that would harm a terminal or a parser, and sizes no one should use: shown, harmless."""

from __future__ import annotations

import re
from typing import Any

import pytest
from textual.pilot import Pilot

from chatapp.chat.conversation import title_from
from tests.ui.host import MemoryStore, ask, make_app, ready, say, shown, until
from tests.ui.scripted import ScriptedEngine, split

HOSTILE = {
    "closing markup": "text [/ and [/bold] and [/]",
    "opening markup": "[bold red on blue] [@click=app.quit]x[/] [link=http://x]",
    "escapes": "\x1b[2J\x1b[31mred\x1b]0;title\x07 end",
    "clipboard": "\x1b]52;c;aGVsbG8=\x07 and \x9b31m",
    "carriage return": "good\rbad\r\nfine\x08\x08\x7f",
    "bidi": "\u202etxet\u202c \u2066x\u2069 \u200f",
    "no space": "x" * 10_000,
    "half a fence": "before\n\n```python\nprint('[/')\n",
    "table": "| [/ | \x1b[1m |\n|---|---|\n| [b | ](x) |\n",
    "links": "[a](javascript:app.exit) ![b](file:///etc/passwd) <b onclick=x>",
    "deep": ">" * 300 + " deep\n" + "- " * 200 + "deeper",
    "rich": ":warning: {x} %s $background @{y} \\[",
}
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200f]")


def screen_text(pilot: Pilot[Any]) -> str:
    """Everything that is on the screen, as it would go to the terminal, without styles."""
    compositor = pilot.app.screen._compositor
    strips = compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_text_is_shown_harmlessly_everywhere(name: str) -> None:
    text = HOSTILE[name]
    engine = ScriptedEngine(
        [piece.encode("utf-8", "surrogatepass") for piece in re.findall(r"\s?\S{1,40}|\s", text)]
    )
    app = make_app(engine, store=MemoryStore())
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        await ask(pilot, text[:2000])
        for keys in (["ctrl+t"], ["ctrl+t"], ["f1"], ["escape"]):
            await pilot.press(*keys)
            assert not CONTROLS.search(screen_text(pilot))
        chat.transcript.focus()
        await pilot.press("left", "left", "n", "up")
        assert not CONTROLS.search(screen_text(pilot))
        assert not CONTROLS.search("\n".join(chat.transcript.text_rows).replace("\n", ""))
        await say(pilot, f"/rename {title_from(text)}")
        chat.say(text, "error")
        await pilot.pause()
        assert not CONTROLS.search(screen_text(pilot))
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert not CONTROLS.search(screen_text(pilot))


async def test_nothing_of_a_long_word_is_lost() -> None:
    engine = ScriptedEngine([b"x" * 100] * 100)
    app = make_app(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "go")
        assert shown(chat).count("x") == 10_000


async def test_storms_of_sizes_while_streaming() -> None:
    text = "word " * 40 + "\n\n```\n" + "code " * 30 + "\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    engine = ScriptedEngine(text, held=True)
    app = make_app(engine)
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        await say(pilot, "go")
        sizes = [(1, 1), (200, 60), (2, 40), (40, 2), (80, 24), (3, 3), (120, 1), (1, 50), (61, 21)]
        for width, height in sizes:
            engine.allow(8)
            await pilot.resize_terminal(width, height)
            await pilot.pause()
        await pilot.press("f1")
        await pilot.resize_terminal(1, 1)
        await pilot.resize_terminal(100, 30)
        await pilot.press("escape")
        engine.allow_all()
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert shown(chat).count("word") == 40


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (40, 10), (79, 24)])
async def test_small_screens_work(size: tuple[int, int]) -> None:
    app = make_app(ScriptedEngine("Small."))
    async with app.run_test(size=size) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "hi")
        chat.transcript.focus()
        await pilot.press("left", "left", "ctrl+t", "ctrl+b", "ctrl+b", "f2", "escape")
        assert chat.session.conversation.path()[-1].text == "Small."


async def test_the_panel_folds_below_its_size_and_comes_back() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        side = chat.query_one("#side")
        assert side.display
        await pilot.resize_terminal(70, 24)
        await pilot.pause()
        assert not side.display
        await pilot.press("ctrl+b")
        assert side.display
        await pilot.press("ctrl+b")
        assert not side.display
        await pilot.resize_terminal(100, 30)
        await pilot.pause()
        assert not side.display  # the user said so


def test_the_scripts_hold_what_they_say() -> None:
    assert "".join(token.decode() for token in split("a [/ b")) == "a [/ b"
