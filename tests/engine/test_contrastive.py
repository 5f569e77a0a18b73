"""Contrastive search against a plain transcription of the paper: no cache, no batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.search import ContrastiveEnd, ContrastiveOptions, ContrastiveStep, SearchError
from chatapp.engine.decoding.contrastive import ContrastiveSearch, weigh
from chatapp.engine.prompt.render import render_prompt
from chatapp.engine.runtimes.base import CannotFork
from chatapp.engine.runtimes.loading import load
from chatapp.engine.runtimes.transformers import PIECE, TransformersRuntime
from tests.tiny_models import save_model

PROMPT = tuple(range(40, 64))


class Found:
    """What one search told."""

    def __init__(self, events: Sequence[object]) -> None:
        self.steps = [event for event in events if isinstance(event, ContrastiveStep)]
        self.end = next(event for event in events if isinstance(event, ContrastiveEnd))
        self.ids = [step.candidates[step.chosen].token.id for step in self.steps]
        self.text = "".join(step.text for step in self.steps)
        self.events = events


def search(
    loaded: TransformersRuntime,
    prompt_ids: Sequence[int],
    options: ContrastiveOptions,
    **others: Any,
) -> Found:
    others.setdefault("cancelled", lambda: False)
    others.setdefault("end_ids", ())
    search = ContrastiveSearch(loaded, prompt_ids, options, **others)
    return Found(list(search.events(loaded.sequence())))


def transcription(
    model: Any, prompt_ids: Sequence[int], count: int, top_k: int, alpha: float
) -> tuple[list[int], list[list[tuple[int, float, float]]]]:
    """Su et al. 2022, equation 5, read literally: every text is read anew from its beginning.

    Returns the ids taken, and at each step every candidate's id, probability and penalty.
    """
    x = list(prompt_ids)
    told = []
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor([x]), use_cache=False).logits[0, -1].float()
            probs = torch.softmax(logits, dim=-1)
            candidates = probs.topk(top_k).indices.tolist()
            weighed = []
            for v in candidates:
                output = model(torch.tensor([[*x, v]]), use_cache=False, output_hidden_states=True)
                h = output.hidden_states[-1][0].float()
                similarity = max(
                    float(torch.cosine_similarity(h[-1], h[j], dim=0)) for j in range(len(x))
                )
                weighed.append((v, float(probs[v]), similarity))
            told.append(weighed)
            x.append(max(weighed, key=lambda one: (1 - alpha) * one[1] - alpha * one[2])[0])
    return x[len(prompt_ids) :], told


def assert_equals_transcription(
    loaded: TransformersRuntime, ids: Sequence[int], options: ContrastiveOptions
) -> None:
    found = search(loaded, ids, options)
    taken, told = transcription(
        loaded.model, ids, options.max_tokens, options.top_k, options.penalty_alpha
    )
    assert found.ids == taken
    for step, weighed in zip(found.steps, told, strict=True):
        for ours, (token_id, prob, penalty) in zip(step.candidates, weighed, strict=True):
            assert ours.token.id == token_id
            assert ours.model_prob == pytest.approx(prob, abs=1e-4)
            assert ours.penalty == pytest.approx(penalty, abs=1e-4)
            alpha = options.penalty_alpha
            assert ours.score == pytest.approx((1 - alpha) * prob - alpha * penalty, abs=1e-4)


def load_folder(folder: Path, context_length: int = 0) -> TransformersRuntime:
    source = ModelSource(folder.name, str(folder), "folder")
    options = LoadOptions(device="cpu", context_length=context_length)
    return load(source, options, folder.parent / "prepared", lambda _: None)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TransformersRuntime:
    return load_folder(save_model(tmp_path_factory.mktemp("models") / "qwen2", "qwen2"))


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma2", "mamba"])
def test_equals_the_paper(kind: str, tmp_path: Path) -> None:
    loaded = load_folder(save_model(tmp_path / kind, kind))
    if kind == "mamba":  # slow without its kernels
        assert_equals_transcription(
            loaded, PROMPT[:6], ContrastiveOptions(top_k=3, penalty_alpha=0.5, max_tokens=4)
        )
        return
    for top_k, alpha in ((4, 0.6), (6, 0.3), (3, 1.0), (2, 0.0)):
        options = ContrastiveOptions(top_k=top_k, penalty_alpha=alpha, max_tokens=8)
        assert_equals_transcription(loaded, PROMPT, options)


@pytest.mark.model
def test_equals_the_paper_on_the_real_model(reference_model: TransformersRuntime) -> None:
    ids = reference_model.tokenizer.encode_text("Why is the sky blue?")
    assert_equals_transcription(reference_model, ids, ContrastiveOptions(max_tokens=4))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("question", ["Why is the sky blue?", "Name three primary colours."])
def test_equals_the_paper_on_the_real_model_for_longer(
    reference_model: TransformersRuntime, question: str
) -> None:
    prompt = Prompt("", (Turn("user", question),))
    ids = render_prompt(reference_model.tokenizer, prompt).ids
    assert_equals_transcription(reference_model, ids, ContrastiveOptions(max_tokens=8))


def test_weigh_on_four_candidates() -> None:
    context = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    probs = torch.tensor([0.5, 0.3, 0.1, 0.05])
    found = weigh(probs, hidden, context, alpha=0.5)
    assert found.penalties.tolist() == pytest.approx([1.0, 0.8, -0.6, 1.0])
    assert found.closest.tolist() == [0, 1, 1, 1]
    assert found.scores.tolist() == pytest.approx([-0.25, -0.25, 0.35, -0.475])
    assert found.chosen == 2


def test_the_closest_token_is_a_position_before_it(qwen: TransformersRuntime) -> None:
    found = search(qwen, PROMPT, ContrastiveOptions(max_tokens=6))
    text = [*PROMPT, *found.ids]
    with torch.inference_mode():
        states = qwen.model(torch.tensor([text]), output_hidden_states=True).hidden_states[-1][0]
    for step in found.steps:
        taken = step.candidates[step.chosen]
        here = len(PROMPT) + step.index
        assert taken.closest < here
        cosine = torch.cosine_similarity(states[here], states[taken.closest], dim=0)
        assert float(cosine) == pytest.approx(taken.penalty, abs=1e-4)


def test_alpha_0_and_one_candidate_are_greedy(qwen: TransformersRuntime) -> None:
    greedy = search(qwen, PROMPT, ContrastiveOptions(top_k=1, max_tokens=10)).ids
    assert greedy == search(qwen, PROMPT, ContrastiveOptions(penalty_alpha=0, max_tokens=10)).ids
    tokens = torch.tensor([PROMPT])
    made = qwen.model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=10,
        eos_token_id=None,
        top_k=None,
    )
    assert greedy == made[0, len(PROMPT) :].tolist()


def test_a_prompt_in_several_pieces(qwen: TransformersRuntime) -> None:
    prompt = tuple(number * 7 % 250 for number in range(300))
    options = ContrastiveOptions(max_tokens=3)
    found = search(qwen, prompt, options)
    done = [event.done for event in found.events if isinstance(event, Progress)]
    assert done[-1] == 300
    assert len(prompt) > PIECE
    assert found.ids == transcription(qwen.model, prompt, 3, options.top_k, 0.6)[0]


def test_ends_at_an_end_token_a_stop_sequence_and_the_limits(qwen: TransformersRuntime) -> None:
    options = ContrastiveOptions(max_tokens=10)
    free = search(qwen, PROMPT, options)
    assert free.end.reason is FinishReason.LENGTH
    assert len(free.ids) == 10

    ended = search(qwen, PROMPT, options, end_ids=(free.ids[4],))
    assert ended.end.reason is FinishReason.STOP
    assert ended.ids == free.ids[: free.ids.index(free.ids[4]) + 1]

    stop = free.text[2:4]
    stopped = search(qwen, PROMPT, options, stop=(stop,))
    assert stopped.end.reason is FinishReason.STOP_SEQUENCE
    assert stopped.text == free.text[: free.text.index(stop)]


def test_the_context_is_a_limit(tmp_path: Path) -> None:
    loaded = load_folder(save_model(tmp_path / "qwen2", "qwen2"), context_length=30)
    found = search(loaded, PROMPT, ContrastiveOptions(max_tokens=0))
    assert found.end.reason is FinishReason.CONTEXT
    assert "30 of 30" in found.end.message
    assert len(found.ids) == 6
    full = search(loaded, range(30), ContrastiveOptions())
    assert full.ids == []
    assert full.end.reason is FinishReason.CONTEXT


def test_cancelling_within_one_token(qwen: TransformersRuntime) -> None:
    stopped = threading.Event()
    events: list[object] = []
    search = ContrastiveSearch(
        qwen, PROMPT, ContrastiveOptions(), end_ids=(), cancelled=stopped.is_set
    )
    for event in search.events(qwen.sequence()):
        events.append(event)
        if isinstance(event, ContrastiveStep) and event.index == 1:
            stopped.set()
    found = Found(events)
    assert len(found.steps) == 2
    assert found.end.reason is FinishReason.CANCELLED


def test_logits_that_are_no_numbers_end_the_search(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = qwen.model.forward

    def broken(tokens: torch.Tensor, **kwargs: Any) -> Any:
        output = forward(tokens, **kwargs)
        if tokens.shape[0] > 1:
            output.logits[:] = torch.nan
        return output

    monkeypatch.setattr(qwen.model, "forward", broken)
    found = search(qwen, PROMPT, ContrastiveOptions())
    assert found.end.reason is FinishReason.ERROR
    assert "NaN" in found.end.message
    assert len(found.steps) == 1


def test_a_cache_without_rows_is_refused(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("transformers.cache_utils.Cache.reorder_cache")
    with pytest.raises(CannotFork, match=r"qwen2 .* cannot be split"):
        search(qwen, PROMPT, ContrastiveOptions())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("top_k", 0), ("top_k", 257), ("penalty_alpha", 1.1), ("penalty_alpha", "x")],
)
def test_bad_values_are_refused_in_words(setting: str, value: Any) -> None:
    with pytest.raises(SearchError, match=f"^{setting} must be .* not "):
        ContrastiveOptions(**{setting: value})
