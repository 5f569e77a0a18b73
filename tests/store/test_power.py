"""When the power fails, at any moment, nothing that was acknowledged is lost.

A killed process leaves its writes to the system, which still carries them out; a power cut takes
all that was not synced. See `tests.store.power` for how one is made here.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatapp.chat.errors import StoreError
from chatapp.store.chats import Chats
from chatapp.store.database import Database
from tests.store.power import Recorder, Step, after_power_cut, some
from tests.store.test_durability import Acknowledged, a_turn, check


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    try:
        recorder = Recorder()
    except (OSError, AttributeError) as error:
        pytest.skip(f"the SQLite that Python uses cannot be reached: {error}")
    yield recorder
    recorder.unregister()


def record_turns(path: Path, recorder: Recorder, synchronous: str) -> dict[str, bytes]:
    """Have some turns saved and recorded. Returns the files as they were before."""
    Database(path).close()
    before = {path.name: path.read_bytes()}
    database = Database(path, make_connection=recorder.connect)
    database._connected().execute(f"PRAGMA synchronous = {synchronous}")
    chats = Chats(database)
    recorder.steps.clear()
    for conversation, message, steps in a_turn(candidates=5):  # as many as `check` expects
        for save in steps:
            save(chats)
        count = len(message.reply.records) if message.reply else 0
        said = (conversation.id, message.id, count)
        recorder.steps.append(Step("", said=said))
    steps = tuple(recorder.steps)
    chats.database.close()
    recorder.steps[:] = steps  # closing may tidy up
    return before


def survives_power_cut(
    folder: Path, before: dict[str, bytes], steps: list[Step], rng: random.Random, share: float
) -> bool:
    """Whether a database that lost its power behind these steps has all that was acknowledged."""
    for file in folder.iterdir():
        file.unlink()
    for name, data in after_power_cut(before, steps, some(rng, share)).items():
        (folder / name).write_bytes(data)
    acknowledged: Acknowledged = {}
    for step in steps:
        if step.said:
            conversation, message, count = step.said
            acknowledged[conversation, message] = count
    try:
        check(folder / "chats.db", acknowledged)
    except (AssertionError, StoreError, sqlite3.DatabaseError, KeyError):
        return False
    return True


def cut_everywhere(
    path: Path, tmp_path: Path, recorder: Recorder, synchronous: str
) -> Iterator[bool]:
    """For every step, with none, some and most of what was not synced: whether all is well."""
    before = record_turns(path, recorder, synchronous)
    folder = tmp_path / "after"
    folder.mkdir()
    rng = random.Random(5)
    for count in range(len(recorder.steps) + 1):
        for share in (0.0, 0.5, 0.9):
            yield survives_power_cut(folder, before, recorder.steps[:count], rng, share)


@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_a_power_cut_at_any_step_loses_nothing_acknowledged(
    path: Path,
    tmp_path: Path,
    recorder: Recorder,
    journal: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chatapp.store.database.journal_mode", lambda: journal)
    outcomes = list(cut_everywhere(path, tmp_path, recorder, "FULL"))
    written = {step.file for step in recorder.steps}
    assert written >= {f"chats.db-{'wal' if journal == 'wal' else 'journal'}"}
    assert len(outcomes) > 150
    assert all(outcomes)


def test_without_syncs_the_same_power_cuts_do_lose_something(
    path: Path, tmp_path: Path, recorder: Recorder
) -> None:
    """So the test above would notice."""
    assert not all(cut_everywhere(path, tmp_path, recorder, "OFF"))
