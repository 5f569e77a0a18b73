"""The probability of a given text, against transformers and plain cross-entropy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.record import TokenRecord, perplexity
from chatapp.engine.look.score import score
from tests.tiny_models import save_model

if TYPE_CHECKING:
    from chatapp.engine.runtimes.transformers import TransformersRuntime

KINDS = ("gpt2", "qwen2", "gemma2", "mamba")
TEXT = (
    "Le phare de l'île était éteint 🏝️, and 12 × 12 is 144. The keeper's daughter climbed the"
    " stairs again, one by one, and lit the lamp herself."
)


def run(
    loaded: TransformersRuntime, ids: list[int], start: int = 1, top_logprobs: int = 3
) -> list[TokenRecord]:
    return list(score(loaded, ids, start, top_logprobs, lambda _: None, lambda: False))


def reference(model: Any, ids: list[int]) -> torch.Tensor:
    """ln p of every token from the second on, and all others: (n − 1, V) float64."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersRuntime]:
    from chatapp.engine.runtimes.loading import load

    loaded = {}
    for kind in KINDS:
        folder = save_model(tmp_path_factory.mktemp(kind), kind)
        source = ModelSource(name=kind, path=str(folder), kind="folder")
        loaded[kind] = load(source, LoadOptions(device="cpu"), Path(), lambda _: None)
    return loaded


@pytest.mark.parametrize("piece", [5, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(
    tiny: dict[str, TransformersRuntime], kind: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that slide past, states that cannot be cropped; in one piece and in many."""
    monkeypatch.setattr("chatapp.engine.look.teacher_forcing.PIECE_TOKENS", piece)
    loaded = tiny[kind]
    ids = loaded.tokenizer.encode_text(TEXT)[:60]
    wanted = reference(loaded.model, ids)
    records = run(loaded, ids)
    assert [record.index for record in records] == list(range(1, len(ids)))
    for record, row in zip(records, wanted, strict=True):
        assert record.id == ids[record.index]
        assert record.logprob == pytest.approx(float(row[record.id]), abs=1e-4)
        assert record.prob == record.tempered_prob == pytest.approx(record.model_prob, abs=1e-6)
        assert record.candidates[0].id == int(row.argmax())
        assert record.draw is None


@pytest.mark.parametrize("kind", ["qwen2", "mamba"])
def test_what_stands_before_the_start_is_context_only(
    tiny: dict[str, TransformersRuntime], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapp.engine.look.teacher_forcing.PIECE_TOKENS", 8)
    ids = tiny[kind].tokenizer.encode_text(TEXT)[:40]
    whole = run(tiny[kind], ids)
    late = run(tiny[kind], ids, start=23)
    assert [record.index for record in late] == list(range(23, 40))
    for one, other in zip(whole[22:], late, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_the_first_token_has_a_record_only_behind_another(
    tiny: dict[str, TransformersRuntime],
) -> None:
    loaded = tiny["qwen2"]
    ids = loaded.tokenizer.encode_text("Hello")
    assert [record.id for record in run(loaded, ids, start=0)] == ids[1:]
    bos = loaded.tokenizer.token_id("<|start|>")
    assert bos is not None
    assert [record.id for record in run(loaded, [bos, *ids])] == ids
    assert run(loaded, ids[:1]) == []
    assert run(loaded, []) == []
    assert math.isnan(perplexity(()))
    assert perplexity([-math.inf, -1.0]) == perplexity([-3000.0]) == math.inf


def test_the_texts_join_to_the_text(tiny: dict[str, TransformersRuntime]) -> None:
    """Bytes of one character are several tokens here; none is lost at the end either."""
    loaded = tiny["qwen2"]
    ids = loaded.tokenizer.encode_text(TEXT)
    records = run(loaded, ids)
    assert TEXT[0] + "".join(record.text for record in records) == TEXT
    cut = run(loaded, loaded.tokenizer.encode_text("aé")[:-1])
    assert "".join(record.text for record in cut) == "�"


def test_progress_and_cancelling(
    tiny: dict[str, TransformersRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapp.engine.look.teacher_forcing.PIECE_TOKENS", 10)
    seen: list[Progress] = []
    stop: list[bool] = []
    ids = tiny["qwen2"].tokenizer.encode_text(TEXT)[:51]
    records = []
    for record in score(tiny["qwen2"], ids, 1, 1, seen.append, lambda: bool(stop)):
        records.append(record)
        if len(records) == 12:
            stop.append(True)
    assert len(records) == 12
    assert [(progress.done, progress.total) for progress in seen] == [(10, 50), (20, 50)]


def test_a_text_longer_than_the_context_is_refused(tiny: dict[str, TransformersRuntime]) -> None:
    with pytest.raises(EngineError, match="257 tokens and the model reads 256; give it in parts"):
        run(tiny["gpt2"], [5] * 257)


def test_a_failing_model_is_told_in_one_line(
    tiny: dict[str, TransformersRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory\nwith many further lines")

    monkeypatch.setattr(tiny["qwen2"].model, "forward", fail)
    with pytest.raises(EngineError, match=r"^the model failed: out of memory$"):
        run(tiny["qwen2"], [5] * 20)


@pytest.mark.model
def test_every_number_equals_transformers(reference_model: TransformersRuntime) -> None:
    ids = [*reference_model.tokenizer.prefix_ids, *reference_model.tokenizer.encode_text(TEXT)]
    records = run(reference_model, ids, top_logprobs=20)
    wanted = reference(reference_model.model, ids)
    end_ids = list(reference_model.facts.end_ids)
    for record, row in zip(records, wanted, strict=True):
        best = row.topk(20)
        assert record.logprob == pytest.approx(float(row[record.id]), abs=1e-4)
        assert record.rank == 1 + int((row > row[record.id]).sum())
        entropy = -(row.exp() * row).sum() / math.log(2)
        assert record.entropy_bits == pytest.approx(float(entropy), abs=1e-4)
        assert record.p_end == pytest.approx(float(row[end_ids].exp().sum()), abs=1e-6)
        for candidate, logprob in zip(record.candidates, best.values.tolist(), strict=False):
            assert candidate.logprob == pytest.approx(logprob, abs=1e-4)


@pytest.mark.model
def test_perplexity_is_the_exponential_of_the_cross_entropy(
    reference_model: TransformersRuntime,
) -> None:
    ids = reference_model.tokenizer.encode_text(TEXT)
    ours = perplexity([one.logprob for one in run(reference_model, ids, top_logprobs=0)])
    tokens = torch.tensor([ids])
    with torch.no_grad():
        output = reference_model.model(tokens, labels=tokens)
    assert ours == pytest.approx(math.exp(float(output.loss)), rel=1e-4)
    logits = output.logits[0, :-1].double().numpy()
    top = logits.max(axis=1, keepdims=True)
    logprobs = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    losses = -logprobs[np.arange(len(ids) - 1), ids[1:]]
    assert ours == pytest.approx(float(np.exp(losses.mean())), rel=1e-4)
