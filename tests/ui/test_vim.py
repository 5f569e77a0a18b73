"""Vim's keys do what Vim does: `vim_said.json` holds what Vim itself made of each of these.

python -m tests.ui.test_vim asks it again.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.app import App, ComposeResult

from chatapp.ui.widgets.vim import VimArea
from tests.ui.host import ask, make_app, notice, ready, say, until
from tests.ui.scripted import ScriptedEngine

TEXT = (
    "The quick  brown fox-trot, jumps\n\n  over (the [lazy] dog) and\n"
    '"some quoted" words\nlast line'
)
PLACES = ((1, 5), (3, 9))
KEYS = re.findall(
    r"\S+",
    """
w 3w W 20w b e E 2e $ ^ 0 G gg 3G l h j k 2j } { % fo to Fq fo; 2fo fo, to;
dw d2w 2dw dW db de dE d$ d0 dd 2dd 3dd dG dgg d} dj dk D C!<Esc> cw!<Esc> cW!<Esc> c2w!<Esc>
cc!<Esc> ce!<Esc> cb!<Esc> x 3x X s!<Esc> S!<Esc> rZ 3rZ ~ 5~ J 3J yyp yyP ywp ywP y$p 2yyp ddp xp
diw daw diW daW yiwp ciw!<Esc> dip dap di" da" ci"!<Esc>
i!<Esc> a!<Esc> I!<Esc> A!<Esc> o!<Esc> O!<Esc> dfo dto dFq dtx d% df,
vd vld vwd viwd vawd Vd Vjd Vjjd v$d vey$p vwy0P Vyp v3l~ vjJ vwc!<Esc> vwovd viw~
dw. x. cw!<Esc>w. A!<Esc>j. dd. 2x. xu ciw!<Esc>w.
d3w 3w2dw wdwP jdw jjdd Gdd GddP Gyyp 2jdG 2jd} jd} wv2ed VGd
jjfhdi( jjfhda( jjfldi[ jjfldib GdG
""",
)
CASES = [(row, column, keys) for row, column in PLACES for keys in KEYS]
SAID = Path(__file__).with_name("vim_said.json")


def ask_vim(folder: Path) -> list[list[Any]]:
    """What Vim makes of all cases: text, row and column of each."""
    script = ["set nojoinspaces startofline", "let said = []"]
    for row, column, keys in CASES:
        escaped = keys.replace('"', '\\"').replace("<", "\\<")
        script += [
            "%bwipeout!",
            f"call setline(1, {json.dumps(TEXT.split(chr(10)))})",
            "set undolevels=100",
            f"call cursor({row}, {column})",
            f'exe "normal! {escaped}"',
            'call add(said, [join(getline(1, "$"), "\\n"), line("."), col(".")])',
        ]
    script += [f"call writefile([json_encode(said)], '{folder / 'said'}')", "qa!"]
    (folder / "script.vim").write_text("\n".join(script))
    command = ["vim", "-Nu", "NONE", "-n", "-es", "-S", str(folder / "script.vim")]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=60)
    said: list[list[Any]] = json.loads((folder / "said").read_text())
    return said


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_the_table_is_vims(tmp_path: Path) -> None:
    assert ask_vim(tmp_path) == json.loads(SAID.read_text())


class Host(App[None]):
    def compose(self) -> ComposeResult:
        yield VimArea(TEXT, soft_wrap=False)


async def test_keys_do_what_they_do_in_vim() -> None:
    app = Host()
    wrong = []
    async with app.run_test(size=(80, 12)) as pilot:
        area = app.query_one(VimArea)
        for (row, column, keys), wanted in zip(CASES, json.loads(SAID.read_text()), strict=True):
            area.vim, area.text, area._found = False, TEXT, ""
            area.vim, area.mode = True, "normal"
            area.move_cursor((row - 1, column - 1))
            for key in re.findall("<Esc>|.", keys):
                name, character = ("escape", None) if key == "<Esc>" else (key, key)
                area.post_message(events.Key(name, character))
            await pilot.pause()
            at_row, at_column = area.cursor_location
            found = [area.text, at_row + 1, at_column + 1]
            if found != wanted:
                wrong.append((row, column, keys, found, wanted))
    assert not wrong


async def test_no_keys_in_any_order_break_the_text_or_the_cursor() -> None:
    rows = ["", "\n", "a", "é🦊 (x [y] {z)\n \n\t\n end\n", "x\n\n\ny z\n", "\"a\" 'b'\n((a)\n"]
    letters = [*"hjklwbeWBE0^$gG{}%fFtT;,dcyxXsSrR~JpPvVuUoOiaIA.123 (\"wp'", *["escape"] * 6]
    hand = random.Random(7)
    app = Host()
    async with app.run_test(size=(60, 12)) as pilot:
        area = app.query_one(VimArea)
        for _ in range(120):
            area.vim, area.text = False, hand.choice(rows)
            area.vim, area.mode = True, "normal"
            for key in hand.choices(letters, k=20):
                area.post_message(events.Key(key, key if len(key) == 1 else None))
            await pilot.pause()
            row, column = area.cursor_location
            length = len(area.document.get_line(row))
            assert 0 <= column <= (max(0, length - 1) if area.mode == "normal" else length)


async def test_the_prompt_knows_vims_keys_on_request() -> None:
    app = make_app(ScriptedEngine("One two.", "Three."))
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/vim maybe")
        assert "/vim takes on or off" in notice(chat)
        chat.prompt.take("")
        await say(pilot, "/vim on")
        await until(pilot, lambda: chat.prompt.vim and not chat.prompt.text, "the mode")
        await pilot.press(*"hello worlds", "escape", "x", "b", *"ia ", "enter")
        await until(pilot, lambda: not chat.turns.busy, "the reply")
        assert chat.session.conversation.path()[0].text == "hello a world"
        assert chat.prompt.mode == "insert"  # after sending, one writes
        # k and j go through what was sent, Enter sends from normal mode too.
        await pilot.press("x", "escape", "k")
        assert chat.prompt.text == "hello a world"
        await pilot.press("enter")
        await until(pilot, lambda: len(chat.session.conversation.path()) == 4, "it is sent")
        await until(pilot, lambda: not chat.turns.busy, "the reply")
        # In the transcript h and l move, and a letter typed there is written.
        await pilot.press("tab", "h")
        assert chat.transcript.cursor is not None
        token = chat.transcript.cursor.token
        await pilot.press("h")
        assert token and chat.transcript.cursor.token == token - 1
        await pilot.press("x")
        await until(pilot, lambda: chat.prompt.text == "x", "the letter")
        await say(pilot, "/vim off")
        await until(pilot, lambda: not chat.prompt.vim, "the end")
        await pilot.press(*"jk")
        assert chat.prompt.text == "jk"


async def test_esc_stops_a_reply_where_nothing_is_written() -> None:
    engine = ScriptedEngine("One two three.", held=True)
    app = make_app(engine, vim=True)
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        await pilot.press("h", "i", "enter")
        await until(pilot, lambda: chat.turns.busy, "the reply")
        await pilot.press("x", "escape")
        assert chat.turns.busy and chat.prompt.mode == "normal"
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")


async def test_a_message_is_edited_with_them_too() -> None:
    app = make_app(ScriptedEngine("Answer."), vim=True)
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        await say(pilot, "/edit")
        await until(pilot, lambda: app.screen is not chat, "the text")
        area = app.screen.query_one(VimArea)
        await pilot.press("escape", "0", "D", *"iNo.", "escape")
        assert area.text == "No."
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is chat, "the chat")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        SAID.write_text(json.dumps(ask_vim(Path(place)), indent=0) + "\n")
