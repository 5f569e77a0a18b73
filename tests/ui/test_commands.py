"""Slash commands: what they do, what they refuse and in which words, how they complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.widgets import OptionList

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import ChatappError
from chatapp.ui.actions import Line, actions_of, message_of, read_line
from chatapp.ui.app import ChatApp
from chatapp.ui.chat.screen import FEATURES
from chatapp.ui.dialogs.chats import ChatsScreen, HitRow
from chatapp.ui.dialogs.dialog import HelpScreen
from chatapp.ui.dialogs.prompt_view import PromptScreen
from chatapp.ui.palette import ActionsProvider
from chatapp.ui.widgets.completions import Completions
from chatapp.ui.widgets.lines_view import LinesView
from tests.ui.host import MemoryStore, ask, make_app, notice, ready, say, shown, until
from tests.ui.inspected import InspectedEngine
from tests.ui.scripted import ScriptedEngine, token_id

SIZE = (100, 30)


def test_lines_are_read_as_commands_or_messages() -> None:
    assert read_line("/temp 0.5") == Line("temp", "0.5")
    assert read_line("/new") == Line("new", "")
    assert read_line("  /temp 1") is None
    assert read_line("//temp") is None
    assert read_line("/etc/passwd\nis a file") is None
    assert message_of("//temp") == "/temp"
    assert message_of("plain // text") == "plain // text"


def test_every_command_of_the_interface_is_there() -> None:
    wanted = (
        "help new chats rename search model template system temp top-k top-p min-p seed set tokens"
        " prompt regen continue branch attach tree edit delete undo export import copy clear quit"
    )
    assert {one.name for one in actions_of(FEATURES)} >= set(wanted.split())


WRONG = [
    ("/tmep 1", "did you mean /temp"),
    ("/xyzzy", "there is no command /xyzzy"),
    ("/temp hot", "temperature must be a number between 0 and 5, not 'hot'"),
    ("/top-k -1", "top_k must be a whole number of at least 0"),
    ("/top-p 2", "top_p must be a number between 0 and 1"),
    ("/temp 9", "temperature must be a number between 0 and 5"),
    ("/min-p x", "min_p must be a number between 0 and 1"),
    ("/seed x", "seed must be a whole number of at least 0"),
    ("/set nothing 1", "no setting is called 'nothing'"),
    ("/set", "/set needs NAME VALUE"),
    ("/set max_tokens -3", "max_tokens must be a whole number"),
    ("/template nobody", "there is no template 'nobody'; there are none, pirate, strict"),
    ("/tokens blue", "/tokens takes on, off, probability"),
    ("/copy everything", "/copy takes message, code or all"),
    ("/search", "/search needs TEXT"),
    ("/quit now", "/quit takes nothing behind it"),
    ("/branch", "there is no token to branch at"),
    ("/export a.md", "exporting is not available"),
    ("/chats", "conversations are not kept in this session"),
]


async def test_what_is_wrong_is_said_and_changes_nothing() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        before = (chat.session.sampling, chat.session.conversation, chat.session.seed)
        for typed, words in WRONG:
            assert words not in notice(chat)
            await say(pilot, typed)
            await until(pilot, lambda words=words: words in notice(chat), f"words after {typed}")
            now = (chat.session.sampling, chat.session.conversation, chat.session.seed)
            assert now == before, typed
            if typed != "/chats":
                assert chat.prompt.text == typed  # to be put right


async def test_numbers_are_set() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        for line in ("/temp 1.2", "/top-k 7", "/top-p 0.5", "/min-p 0.1", "/seed 3"):
            await say(pilot, line)
        await say(pilot, "/set repetition_penalty 1.3")
        await say(pilot, "/set max_tokens 99")
        sampling = chat.session.sampling
        assert (sampling.temperature, sampling.top_k) == (1.2, 7)
        assert (sampling.top_p, sampling.min_p) == (0.5, 0.1)
        assert sampling.repetition_penalty == 1.3
        assert (chat.session.seed, chat.session.max_tokens) == (3, 99)
        await say(pilot, "/seed off")
        assert chat.session.seed is None
        await say(pilot, "/temp")
        assert "temperature is 1.20" in notice(chat)


async def test_a_doubled_slash_is_sent_as_one() -> None:
    engine = ScriptedEngine("Yes.")
    app = make_app(engine)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "//help me")
        assert chat.session.conversation.path()[0].text == "/help me"


async def test_templates_and_system_text() -> None:
    app = make_app(ScriptedEngine("Aye."), store=MemoryStore())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/template strict")
        assert chat.session.conversation.system == "Be exact."
        assert chat.session.sampling.temperature == 0.0
        await say(pilot, "/system Speak plainly.")
        await until(pilot, lambda: chat.session.conversation.system == "Speak plainly.")
        await say(pilot, "/system")
        assert "Speak plainly." in notice(chat)
        await ask(pilot, "Hello")
        first = chat.session.conversation.id
        await say(pilot, "/clear")
        await until(pilot, lambda: chat.session.conversation.id != first, "an empty chat")
        assert chat.session.conversation.system == "Speak plainly."
        assert not chat.session.conversation.messages
        await say(pilot, "/new pirate")
        await until(pilot, lambda: chat.session.conversation.system == "You are a pirate.")


async def test_regenerate_branch_and_rename() -> None:
    engine = InspectedEngine("One two.", "Again.", " then.", " on.")
    store = MemoryStore()
    app = make_app(engine, store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Hello")
        await ask(pilot, "/regen")
        assert "Again." in shown(chat)
        await say(pilot, "/branch 2")
        await until(pilot, lambda: "then." in shown(chat), "the branch")
        await until(pilot, lambda: not chat.turns.busy, "its end")
        assert engine.requests[-1][1].forced_ids == (1,)  # the second place of the vocabulary
        await say(pilot, "/branch 50001")
        assert "a rank from 1 to 50000" in notice(chat)
        await say(pilot, '/branch " a bluebird"')
        await until(pilot, lambda: "on." in shown(chat), "the branch")
        await until(pilot, lambda: not chat.turns.busy, "its end")
        assert engine.requests[-1][1].forced_ids == (token_id(b" a"), token_id(b" bluebird"))
        await say(pilot, "/rename A better name")
        await until(pilot, lambda: "A better name" in notice(chat), "the name")
        kept = store.conversations[chat.session.conversation.id]
        assert kept.title == "A better name"


async def test_prompt_shows_the_exact_tokens() -> None:
    app = make_app(ScriptedEngine("Yes."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Hello there")
        await say(pilot, "/prompt")
        await until(pilot, lambda: isinstance(app.screen, PromptScreen), "the prompt")
        view = app.screen.query_one(LinesView)
        await until(pilot, lambda: view.text_rows, "its rows")
        assert any("<|turn|>user↵" in row for row in view.text_rows)
        await pilot.press("t")
        assert any("control" in row for row in view.text_rows)
        assert any("␣there" in row for row in view.text_rows)
        await pilot.press("escape")
        assert app.screen is chat


async def test_chats_are_listed_searched_and_opened() -> None:
    store = MemoryStore()
    app = make_app(ScriptedEngine("Plums.", "Pears."), store=store)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "First question")
        first = chat.session.conversation
        store_messages = store.messages[first.id].values()
        store.conversations[first.id] = _whole(first, store_messages)
        await pilot.press("ctrl+n")
        await ask(pilot, "Second question")
        await say(pilot, "/search Plums")
        await until(pilot, lambda: isinstance(app.screen, ChatsScreen), "the list")
        await until(pilot, lambda: _choices(app.screen) == ["First question"], "the hit")
        await pilot.press("enter")
        await until(pilot, lambda: "Plums." in shown(chat), "the chat")
        assert chat.session.conversation.id == first.id


def _whole(conversation: Conversation, messages: object) -> Conversation:
    return conversation


def _choices(screen: object) -> list[str]:
    assert isinstance(screen, ChatsScreen)
    return [row.hit.title for row in screen.rows if isinstance(row, HitRow)]


async def test_export_and_import_use_the_services(tmp_path: Path) -> None:
    written: list[Path] = []

    async def export(conversation: Conversation, path: Path) -> None:
        if path.suffix != ".md":
            raise ChatappError("cannot write .xyz; there are .md, .html, .json and .jsonl")
        written.append(path)

    app = make_app(ScriptedEngine(), export_chat=export)
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, f"/export {tmp_path}/chat.md")
        await until(pilot, lambda: "written to" in notice(chat), "the file")
        assert written == [tmp_path / "chat.md"]
        await say(pilot, f"/export {tmp_path}/chat.xyz")
        await until(pilot, lambda: "cannot write .xyz" in notice(chat), "the refusal")
        await say(pilot, "/import nowhere.json")
        await until(pilot, lambda: "not kept" in notice(chat), "the refusal")


async def test_tab_completes_names_and_values() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press(*"/tem")
        completions = chat.query_one("#completions")
        assert completions.display
        await pilot.press("tab")
        assert chat.prompt.text == "/temp"  # what /temp and /template have in common is there
        await pilot.press(*"late", "tab")
        assert chat.prompt.text == "/template "
        await pilot.press(*"pi", "tab")
        assert chat.prompt.text == "/template pirate"
        assert not completions.display
        chat.prompt.take("/set rep")
        await pilot.press("tab")
        assert chat.prompt.text == "/set repetition_penalty "


async def test_completions_say_what_they_do_and_are_chosen_with_the_arrows() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        height = chat.transcript.size.height
        await pilot.press(*"/te")
        completions = chat.query_one(Completions)
        text = str(completions.visual)
        assert "/template " in text and "Begin a new chat from a template" in text
        assert chat.transcript.size.height == height  # it covers, it does not push
        assert completions.region.bottom <= chat.query_one("#prompt-bar").region.y + 1
        await pilot.press("down")
        assert completions.chosen == "/temp "
        await pilot.press("down", "enter")
        assert chat.prompt.text == "/template "
        await pilot.press("down", "down", "tab")  # its values
        assert chat.prompt.text == "/template pirate"
        assert not completions.display
        chat.prompt.take("/new")
        await pilot.press("enter")
        await pilot.press("up")
        assert chat.prompt.text == "/new" and not completions.display  # the history, not the list


async def test_help_lists_keys_and_commands() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/help")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
        view = app.screen.query_one(LinesView)
        await until(pilot, lambda: view.text_rows, "its rows")
        text = "\n".join(view.text_rows)
        for part in ("shift+enter, ctrl+j, alt+enter", "chat.tokens", "/min-p", "/export FILE"):
            assert part in text
        await pilot.press("escape")
        chat.transcript.focus()
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen), "help")
        view = app.screen.query_one(LinesView)
        await until(pilot, lambda: view.text_rows, "its rows")
        assert any("walk a reply token by token" in row for row in view.text_rows)


async def test_the_palette_holds_every_action_with_its_key_and_finds_it_by_its_sentence() -> None:
    app = make_app(ScriptedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        palette = ActionsProvider(chat)
        offered = {hit.text: hit async for hit in palette.discover()}
        assert len(offered) == len(chat.actions.all)
        for text in ("/regen   ctrl+r", "/search TEXT", "/pause   f6", "/settings   f2", "/stop"):
            assert text in offered
        offered["/search TEXT"].command()
        assert chat.prompt.text == "/search "
        found = [hit.text async for hit in palette.search("seven bites")]
        assert not found
        found = [hit.text async for hit in palette.search("another reply")]
        assert "/regen   ctrl+r" in found
        chat.prompt.take("")
        await pilot.press("ctrl+p", *"side panel")
        await until(pilot, lambda: _listed(app), "what was found")
        shown_before = chat.query_one("#side").display
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is chat, "the choice")
        await until(pilot, lambda: chat.query_one("#side").display is not shown_before, "the panel")


def _listed(app: ChatApp) -> bool:
    return isinstance(app.screen, CommandPalette) and bool(
        app.screen.query_one(OptionList).option_count
    )


async def test_paths_are_completed_where_a_file_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("notes one.txt", "nothing.gguf", ".hidden.txt", "bad\x1bname.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "deep.gguf").write_text("x")
    monkeypatch.chdir(tmp_path)
    app = make_app(ScriptedEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        chat = await ready(pilot)

        def offered(text: str) -> list[str]:
            return [line for line, _ in chat.actions.completions(text)]

        every = ["/attach nested/", "/attach notes one.txt", "/attach nothing.gguf"]
        assert offered("/attach ") == offered("/attach n") == every
        assert offered("/attach .h") == ["/attach .hidden.txt"]
        assert offered(f"/attach {tmp_path}/nes") == [f"/attach {tmp_path}/nested/"]
        assert offered("/model n") == ["/model nested/", "/model nothing.gguf"]
        assert offered("/model nested/") == ["/model nested/deep.gguf"]
        for nowhere in ("/attach /no/such/", "/attach ~nobody-here/", "/attach a\0/"):
            assert offered(nowhere) == []
        await pilot.press(*"/model ne", "tab")
        assert chat.prompt.text == "/model nested/"
