"""Greedy decoding against transformers' generate(), on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from tests.tiny_models import save_gguf, save_model

PROMPTS = (
    "Name three primary colours.",
    "日本の首都はどこですか?",
    "Give me a recipe for pancakes 🥞.",
)

GREEDY = SamplingParams(temperature=0)


class Answer:
    """What one request to the engine gave."""

    def __init__(self, events: Sequence[object]) -> None:
        self.records = [event.record for event in events if isinstance(event, TokenStep)]
        self.ids = [record.id for record in self.records]
        self.text = "".join(record.text for record in self.records)
        self.read = next(event for event in events if isinstance(event, PromptRead))
        self.end = next(event for event in events if isinstance(event, GenerationEnd))


def ask(engine: LocalEngine, turns: Sequence[Turn], max_tokens: int, **prompt: Any) -> Answer:
    options = GenerateOptions(sampling=GREEDY, max_tokens=max_tokens, top_logprobs=2)
    asked = Prompt(system=prompt.pop("system", ""), turns=tuple(turns), **prompt)
    return Answer(list(engine.generate(asked, options, Controls(GREEDY))))


def reply_turn(answer: Answer, end_ids: Sequence[int]) -> Turn:
    ids = answer.ids[:-1] if answer.ids[-1] in end_ids else answer.ids
    return Turn("assistant", answer.text, tuple(ids))


def oracle(model: Any, ids: Sequence[int], count: int) -> list[int]:
    """The ids generate() adds, end token included."""
    tokens = torch.tensor([list(ids)])
    made = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=count,
        top_k=None,
    )
    return [int(item) for item in made[0, len(ids) :]]


def check_arg_max(model: Any, prompt_ids: Sequence[int], reply_ids: Sequence[int]) -> None:
    """That each id has the largest logit: greedy decoding's definition, in one pass of the model.

    The pass adds in another order than a step does, so a logit may fall short by its rounding.
    """
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt_ids, *reply_ids[:-1]]])).logits[0]
    logits = logits[len(prompt_ids) - 1 :]
    taken = logits.gather(1, torch.tensor([list(reply_ids)]).T)[:, 0]
    assert taken.tolist() == pytest.approx(logits.amax(1).tolist(), abs=1e-3)


@pytest.mark.model
@pytest.mark.parametrize(
    ("question", "count"),
    [(PROMPTS[1], 10), *(pytest.param(one, 32, marks=pytest.mark.slow) for one in PROMPTS)],
)
def test_first_and_third_turn_are_greedy(
    reference_engine: LocalEngine, reference: Any, question: str, count: int
) -> None:
    """The first by generate() itself, which is slow; the third by one pass of the model."""
    turns = [Turn("user", question)]
    first = ask(reference_engine, turns, count)
    plain = first.read.prompt_ids
    assert first.ids == oracle(reference, plain, len(first.ids))

    end_ids = reference_engine.runtime.facts.end_ids
    turns += [reply_turn(first, end_ids), Turn("user", "Tell me more about that.")]
    second = ask(reference_engine, turns, 6)
    turns += [reply_turn(second, end_ids), Turn("user", "Now say it in five words.")]
    third = ask(reference_engine, turns, count)
    prompt = third.read.prompt_ids
    # Everything up to the end of the second reply was read before, but for its last token.
    assert third.read.cached_tokens >= len(second.read.prompt_ids) + len(second.ids) - 2
    assert tuple(first.read.prompt_ids + tuple(first.ids)) == prompt[: len(plain) + len(first.ids)]
    check_arg_max(reference, prompt, third.ids)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma2", "mamba"])
def test_other_architectures_equal_generate(
    kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Three turns each; where the cache can't be cropped the prompt is read anew, correctly."""
    from transformers import AutoModelForCausalLM

    chat = kind != "gpt2"
    folder = save_model(tmp_path / kind, kind, chat=chat)
    engine = LocalEngine(tmp_path / "prepared")
    source = ModelSource(kind, str(folder), "folder")
    facts = engine.load(source, LoadOptions(device="cpu"), lambda _: None)
    assert facts.has_chat_template is chat
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    transcript = PromptFormat("auto", "{% for m in messages %}{{ m.content }}\n{% endfor %}")
    turns = [Turn("user", "one")]
    for text in ("two", "three", "end"):
        answer = ask(engine, turns, 24, format=transcript)
        assert answer.ids == oracle(model, answer.read.prompt_ids, 24)
        turns += [reply_turn(answer, facts.end_ids), Turn("user", text)]
    # A different beginning: nothing of the cache may leak into it.
    fresh = ask(engine, [Turn("user", "other words altogether")], 24, format=transcript)
    assert fresh.ids == oracle(model, fresh.read.prompt_ids, 24)
    again = ask(engine, turns[:1], 24, format=transcript)
    assert again.ids == oracle(model, again.read.prompt_ids, 24)


@pytest.mark.model
@pytest.mark.parametrize(
    ("size", "context", "least"),
    [("tiny", 1900, 30), ("real", 190, 8), pytest.param("real", 760, 30, marks=pytest.mark.slow)],
)
def test_many_turns_until_the_context_is_full(
    model_source: ModelSource, tmp_path: Path, size: str, context: int, least: int
) -> None:
    if size == "tiny":
        file = save_gguf(tmp_path / "tiny.gguf", context=2048)
        model_source = ModelSource("tiny", str(file), "gguf")
    engine = LocalEngine(tmp_path / "prepared")
    facts = engine.load(model_source, LoadOptions(context_length=context), lambda _: None)
    assert facts.context_length == context
    turns: list[Turn] = []
    reasons = []
    for number in range(40):
        turns.append(Turn("user", f"Question {number}: name another animal."))
        options = GenerateOptions(sampling=GREEDY, max_tokens=4, top_logprobs=0)
        prompt = Prompt(system="", turns=tuple(turns))
        events = list(engine.generate(prompt, options, Controls(GREEDY)))
        end = events[-1]
        assert isinstance(end, GenerationEnd)
        reasons.append(end.reason)
        if end.reason is FinishReason.CONTEXT:
            assert "the context is full" in end.message
            assert str(context) in end.message
            break
        turns.append(reply_turn(Answer(events), facts.end_ids))
    assert len(reasons) >= least
    assert reasons[-1] is FinishReason.CONTEXT
    # It goes on saying so, and takes no harm from being asked again.
    turns.append(Turn("user", "And now?" * 50))
    end = list(engine.generate(Prompt("", tuple(turns)), options, Controls(GREEDY)))[-1]
    assert isinstance(end, GenerationEnd)
    assert end.reason is FinishReason.CONTEXT
