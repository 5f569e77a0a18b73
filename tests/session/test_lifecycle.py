"""Whatever ends the program in mid-reply: the partial reply is there again, and goes on."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from chatapp.chat.conversation import Conversation, Reply
from chatapp.chat.record import FinishReason
from chatapp.session.session import ReplyEnded, Session
from chatapp.store.store import Store
from tests.terminal import Terminal
from tests.ui.host import make_services
from tests.ui.play_kept import REST
from tests.ui.scripted import FACTS, ScriptedEngine

SEEN = 60
"""How many words of the reply are on the screen when it is interrupted."""
LEAST_KEPT = 20
"""How many of them must be on disk: those of the last second may be missing."""


async def last_kept(folder: Path) -> Conversation:
    store = await Store.open(folder / "chats.db")
    try:
        latest = await store.latest()
        assert latest is not None
        return await store.load(latest)
    finally:
        await store.close()


def reply_at(conversation: Conversation) -> Reply:
    reply = conversation.path()[-1].reply
    assert reply is not None
    return reply


@pytest.mark.terminal
@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (signal.SIGHUP, FinishReason.CANCELLED, "stopped; /continue goes on"),
        (signal.SIGTERM, FinishReason.CANCELLED, "stopped; /continue goes on"),
        (signal.SIGKILL, None, "cut: the program ended in the middle of it; /continue goes on"),
    ],
)
async def test_an_interrupted_reply_is_there_again_and_goes_on_from_its_ids(
    tmp_path: Path, number: signal.Signals, reason: FinishReason | None, words: str
) -> None:
    with Terminal(str(tmp_path), module="tests.ui.play_kept") as terminal:
        terminal.wait_for("ctx ")
        terminal.send("count\r")
        terminal.wait_for(f"word{SEEN}")
        program = terminal.program()
        program.send_signal(number)
        assert not psutil.wait_procs([program], timeout=60)[1]
    conversation = await last_kept(tmp_path)
    cut = reply_at(conversation)
    assert cut.finish_reason is reason
    assert len(cut.records) >= (LEAST_KEPT if number is signal.SIGKILL else SEEN)
    assert conversation.path()[-1].text == "".join(record.text for record in cut.records)

    with Terminal(str(tmp_path), "-c", module="tests.ui.play_kept") as terminal:
        terminal.wait_for("ctx ")
        terminal.wait_for(words)
        terminal.send("\t")
        terminal.wait_for("unsure")  # the keys of the transcript
        terminal.send("c")
        terminal.wait_for(REST.strip())
        terminal.send("\x11")
        terminal.wait_until_left()
    conversation = await last_kept(tmp_path)
    whole = reply_at(conversation)
    assert whole.ids[: len(cut.ids)] == cut.ids
    assert conversation.path()[-1].text.endswith(REST)
    question = conversation.path()[0]
    assert len(conversation.children(question.id)) == 2  # what was cut stands beside it


def newest_token(text: str) -> int:
    """The number of the token that the panel shows; 0 while there is none."""
    found = re.search(r"token (\d+)", text)
    return int(found[1]) if found else 0


@pytest.mark.model
@pytest.mark.terminal
@pytest.mark.usefixtures("home_with_model")
def test_a_killed_program_resumes_with_the_real_model() -> None:
    with Terminal() as terminal:
        terminal.wait_for("ctx ")
        terminal.send("/end forbid\r")  # else the draw alone decides whether it gets that long
        terminal.wait_for("end forbidden")
        terminal.send("Tell me a very long story about a lighthouse and the sea.\r")
        # Saved twice a second: by then some of it is on disk.
        terminal.wait(lambda text: newest_token(text) > 40, "forty tokens")
        processes = terminal.processes()
        terminal.program().kill()
        assert not psutil.wait_procs(processes, timeout=60)[1]
    with Terminal("-c") as terminal:
        terminal.wait_for("ctx ")
        terminal.wait_for("cut: the program ended in the middle of it")
        terminal.send("\t")
        terminal.wait_for("unsure")
        terminal.send("c")
        terminal.wait_for("2/2")
        terminal.wait_for("tok/s")
        terminal.send("\x11")
        assert terminal.wait_until_left() == 0
        terminal.check_left_as_found()


async def say(session: Session, text: str) -> None:
    async for event in session.send(text):
        if isinstance(event, ReplyEnded):
            return
    raise AssertionError("the reply never ended")


def make_session(store: Store, *scripts: str) -> Session:
    session = make_services(ScriptedEngine(*scripts), store=store).session
    session.facts = FACTS
    return session


async def test_two_programs_on_one_folder_lose_nothing(tmp_path: Path) -> None:
    one, two = [await Store.open(tmp_path / "chats.db") for _ in range(2)]
    try:
        here, there = make_session(one, "A1", "A2"), make_session(two, "B1", "B2")
        await say(here, "from here")
        # The other one sees it, opens it, and both go on from the same message.
        (summary,) = await two.list_conversations()
        await there.open(summary.id)
        await say(there, "on from there")
        await say(here, "on from here")
        merged = await one.load(summary.id)
        merged.check()
        assert sorted(message.text for message in merged.messages.values()) == [
            "A1", "A2", "B1", "from here", "on from here", "on from there",
        ]  # fmt: skip
        assert len(merged.leaves()) == 2
        # What one deletes and the other still writes to is not lost.
        await two.delete(summary.id)
        await say(here, "still here")
        assert summary.id in {kept.id for kept in await two.list_conversations()}
    finally:
        await one.close()
        await two.close()
