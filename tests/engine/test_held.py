"""A reply that is held, with a tiny model: what is kept for questions, and whose time it is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, Paused, PromptRead, TokenStep
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.record import SamplingSpan
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.look.inspection import Inspection, LogitsGone
from tests.tiny_models import save_model

if TYPE_CHECKING:
    from chatapp.engine.runtimes.transformers import TransformersRuntime

SEED = 5
"""Its second number is on another side of XTC's chance than its seventh and eighth."""
PROMPT = (72, 101, 108, 108, 111)
XTC = SamplingParams(temperature=1.5, min_p=0, xtc_probability=0.5, xtc_threshold=0.001)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TransformersRuntime:
    from chatapp.engine.runtimes.loading import load

    folder = save_model(tmp_path_factory.mktemp("qwen2"), "qwen2")
    source = ModelSource(name="qwen2", path=str(folder), kind="folder")
    return load(source, LoadOptions(device="cpu"), Path(), lambda _: None)


def hold(loaded: TransformersRuntime, task: Task, history: LogitHistory) -> Paused:
    """Take the tokens that a task forces, and hold before the next one."""
    controls = Controls(task.options.sampling)
    controls.pause()
    events = generate(loaded, loaded.sequence(), task, controls, history)
    return next(event for event in events if isinstance(event, Paused))


def ask(loaded: TransformersRuntime, history: LogitHistory) -> Inspection:
    ends = loaded.facts.end_ids
    return Inspection(loaded, history, lambda *_: ends, frozenset)


def test_the_chain_stands_as_it_does_though_no_record_could_tell(qwen: TransformersRuntime) -> None:
    """A branch of the same seed begins its numbers anew, behind draws of that very seed."""
    generator = random.Random(SEED)
    draws = tuple(generator.random() for _ in range(6))
    kept = (65, 66, 67, 68, 69, 71)
    options = GenerateOptions(sampling=XTC, seed=SEED, top_logprobs=8, forced_ids=(70,))
    history = LogitHistory(1 << 24)
    task = Task((*PROMPT, *kept), options, (), reply_ids=kept)
    record = hold(qwen, task, history).next
    reply = WrittenReply(
        prompt_ids=PROMPT,
        ids=(*kept, 70),
        draws=(*draws, None),
        probs=(0.1,) * 7,
        spans=(SamplingSpan(0, XTC), SamplingSpan(6, XTC)),
        seed=SEED,
    )
    step = ReplyStep(reply=reply, index=7)
    ids = [one.id for one in record.candidates]
    assert ask(qwen, history).trace(step, ids).candidates == record.candidates


def test_a_held_step_is_told_of_though_its_reply_was_forgotten(qwen: TransformersRuntime) -> None:
    options = GenerateOptions(sampling=XTC, seed=9, top_logprobs=8, forced_ids=(70, 71))
    history = LogitHistory(0)
    record = hold(qwen, Task(PROMPT, options, ()), history).next
    assert history.bytes_used == 0
    reply = WrittenReply(
        prompt_ids=PROMPT,
        ids=(70, 71),
        draws=(None, None),
        probs=(0.1, 0.1),
        spans=(SamplingSpan(0, XTC),),
        seed=9,
    )
    inspection = ask(qwen, history)
    page = inspection.candidates(ReplyStep(reply=reply, index=2), 0, 8)
    assert page.candidates == record.candidates[:8]
    with pytest.raises(LogitsGone):
        inspection.candidates(ReplyStep(reply=reply, index=1), 0, 8)


def test_the_time_a_reply_is_held_is_not_its_own(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("chatapp.engine.decoding.decode.time.monotonic", lambda: clock[0])
    controls = Controls(XTC)
    controls.pause()
    task = Task(PROMPT, GenerateOptions(sampling=XTC, max_tokens=3), ())
    end = None
    for event in generate(qwen, qwen.sequence(), task, controls):
        if isinstance(event, Paused):
            clock[0] += 1000  # the user looks at it
            controls.step()
        elif isinstance(event, PromptRead | TokenStep):
            clock[0] += 2
        end = event
    assert isinstance(end, GenerationEnd)
    assert (end.time_to_first_token, end.seconds) == (2, 4)


def test_leaves_of_the_persons_own_choice_outlast_going_on() -> None:
    controls = Controls(SamplingParams())
    controls.pause()
    assert controls.leave() is None
    controls.step()
    controls.step((7, 8))
    assert controls.chosen == 2
    controls.resume()
    taken = [controls.leave() for _ in range(3)]
    assert [leave and leave.token_id for leave in taken] == [7, 8, None]
    assert controls.chosen == 0
