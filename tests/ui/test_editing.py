"""Messages written anew, deleted and brought back: nothing that followed is lost."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from chatapp.chat.record import FinishReason
from chatapp.ui.chat.screen import ChatScreen
from tests.ui.host import ask, make_app, notice, ready, say, shown, until
from tests.ui.kept import make_kept_app, open_store
from tests.ui.scripted import ScriptedEngine

SIZE = (100, 30)


def shows(chat: ChatScreen, text: str) -> bool:
    return text in shown(chat)


async def test_a_reply_edited_by_hand_stands_beside_the_old_one_without_numbers(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        app = make_kept_app(ScriptedEngine("An answer.", "Later."), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await ask(pilot, "Question")
            old = chat.session.conversation.path()[-1]
            await ask(pilot, "And then?")
            chat.transcript.focus()
            chat.transcript.point(old.id, 0)
            await pilot.press("e", *" Mine", "ctrl+s")
            await until(pilot, lambda: "An answer. Mine" in shown(chat), "the edit")
            assert "no model wrote it" in notice(chat)
            edited = chat.session.conversation.path()[-1]
            assert edited.role == "assistant" and edited.reply is None
            assert chat.transcript.pointed is None  # no number is shown for it
            # What followed the old one is one key away.
            await pilot.press("left_square_bracket")
            await until(pilot, lambda: "Later." in shown(chat), "the old path")
            assert "1 of 2" in notice(chat)
        kept = await store.load(chat.session.conversation.id)
        assert {m.text for m in kept.messages.values()} == {
            "Question", "An answer.", "And then?", "Later.", "An answer. Mine",
        }  # fmt: skip
        before = kept.messages[old.id].reply
        assert before is not None and before.records


async def test_brackets_stay_at_the_branch_that_is_pointed_at() -> None:
    app = make_app(ScriptedEngine("One.", "Two.", "Three.", "After."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        for text in ("Two.", "Three."):
            await pilot.press("ctrl+r")
            await until(pilot, partial(shows, chat, text), text)
            await until(pilot, lambda: not chat.turns.busy, "the end")
        third = chat.session.conversation.path()[-1]
        await ask(pilot, "And then?")
        chat.transcript.point(third.id, 0)
        chat.transcript.focus()
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "2 of 3" in notice(chat), "the second")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "1 of 3" in notice(chat), "the first")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "no other one" in notice(chat), "the end")
        await pilot.press("right_square_bracket", "right_square_bracket")
        await until(pilot, lambda: "After." in shown(chat), "the path as it was")


async def test_u_brings_back_what_was_deleted_also_after_a_restart(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        app = make_kept_app(ScriptedEngine("Answer."), store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await ask(pilot, "Question")
            chat.transcript.focus()
            await pilot.press("d")
            await until(pilot, lambda: "u brings it back" in notice(chat), "the words")
            assert "Answer." not in shown(chat)
            kept_id = chat.session.conversation.id
        app = make_kept_app(ScriptedEngine(), store)
        await app.services.session.open(kept_id)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            assert "Answer." not in shown(chat)
            chat.transcript.focus()
            await pilot.press("u")
            await until(pilot, lambda: "Answer." in shown(chat), "the undo")
            assert "it is back" in notice(chat)
            await pilot.press("u")
            await until(pilot, lambda: "nothing is deleted" in notice(chat), "the words")
        assert [m.deleted for m in (await store.load(kept_id)).path()] == [None, None]


async def test_commands_do_what_the_keys_do() -> None:
    app = make_app(ScriptedEngine("Answer."))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "Question")
        await say(pilot, "/delete")
        await until(pilot, lambda: "Answer." not in shown(chat), "the deletion")
        await say(pilot, "/undo")
        await until(pilot, lambda: "Answer." in shown(chat), "the undo")
        await say(pilot, "/edit")
        await until(pilot, lambda: app.screen is not chat, "the text")
        await pilot.press("escape")
        await say(pilot, "/tree")
        await until(pilot, lambda: app.screen is not chat, "the tree")


async def test_a_reply_cut_by_a_dead_engine_goes_on_from_its_exact_ids(tmp_path: Path) -> None:
    engine = ScriptedEngine("One two three four", " five.", held=True)
    async with open_store(tmp_path) as store:
        app = make_kept_app(engine, store)
        async with app.run_test(size=SIZE) as pilot:
            chat = await ready(pilot)
            await say(pilot, "count")
            engine.allow(2)
            await until(pilot, lambda: "One two" in shown(chat), "two tokens")
            engine.dead = True
            engine.allow(1)
            await until(pilot, lambda: not chat.turns.busy, "the end")
            assert "/continue" in shown(chat)
            cut = chat.session.conversation.path()[-1].reply
            assert cut is not None and cut.finish_reason is FinishReason.ERROR
            engine.dead = False
            engine.allow_all()
            chat.transcript.focus()
            await pilot.press("c")
            await until(pilot, lambda: "One two five." in shown(chat), "the rest")
            prompt, _ = engine.requests[-1]
            assert prompt.continue_reply and prompt.turns[-1].ids == cut.ids
            await until(pilot, lambda: not chat.turns.busy, "the end")
            assert len(chat.session.conversation.leaves()) == 2  # the cut one is still there
