"""GGUF files of several architectures on llama.cpp, against transformers on the same weights.

Sliding windows (Gemma), shared keys (Qwen), fused products (Phi) and a recurrent state that can't
be put back (Mamba): each chats, branches and crops as a fresh reading does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from tests.tiny_models import ARCHITECTURES, VOCABULARY, save_gguf_of

pytest.importorskip("xllamacpp")

GREEDY = SamplingParams(temperature=0)
TURNS = (Turn("user", "Name a colour."), Turn("assistant", "Blue."), Turn("user", "Another one."))
"""Longer than the windows."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalEngine, Any, ModelSource]]:
    """An engine with such a model, and the model as transformers has it."""
    folder = tmp_path_factory.mktemp(request.param)
    reference = save_gguf_of(folder / "tiny.gguf", request.param)
    source = ModelSource(request.param, str(folder / "tiny.gguf"), "gguf")
    engine = LocalEngine(folder)
    facts = engine.load(source, LoadOptions(threads=1), lambda _: None)
    assert (facts.runtime, facts.architecture) == ("llama.cpp", request.param)
    yield engine, reference, source
    engine.unload()


def logits_of(reference: Any, ids: Sequence[int]) -> Any:
    """(n, V): transformers' logits for each place of a text."""
    import torch

    with torch.no_grad():
        return reference(torch.tensor([list(ids)]), use_cache=False).logits[0].float().numpy()


def write(engine: LocalEngine, prompt: Prompt, **options: Any) -> tuple[TokenRecord, ...]:
    made = GenerateOptions(sampling=GREEDY, max_tokens=24, **options)
    records = []
    for event in engine.generate(prompt, made, Controls(GREEDY)):
        if isinstance(event, TokenStep):
            records.append(event.record)
        if isinstance(event, GenerationEnd):
            assert event.reason in (FinishReason.STOP, FinishReason.LENGTH), event.message
    return tuple(records)


def test_its_logits_are_those_of_transformers(made: Any) -> None:
    engine, reference, _ = made
    ids = np.random.default_rng(1).integers(0, VOCABULARY - 3, 60).tolist()
    wanted = logits_of(reference, ids)
    sequence = engine.runtime.sequence()
    at_once = sequence.read(ids, last=len(ids)).logits
    sequence.clear()
    one_by_one = np.stack([sequence.read([one]).logits[-1] for one in ids])
    sequence.close()
    scale = np.abs(wanted).max()
    for read in (at_once, one_by_one):
        off = np.abs(read - wanted) / scale
        # llama.cpp keeps keys and values in half precision, and reads some functions off a table.
        assert off.mean() < 0.002
        assert off.max() < 0.03


def test_it_chats_as_transformers_would(made: Any) -> None:
    engine, reference, _ = made
    prompt = Prompt("", TURNS)
    ids = [token.id for token in engine.render(prompt).tokens]
    records = write(engine, prompt)
    assert records
    drawn = [record.id for record in records]
    wanted = logits_of(reference, [*ids, *drawn])
    for place, token_id in enumerate(drawn, len(ids) - 1):
        behind = wanted[place].max() - wanted[place][token_id]
        assert behind < 0.01 * np.abs(wanted).max()  # the arg-max, or as good as it


def same(ours: Sequence[TokenRecord], theirs: Sequence[TokenRecord]) -> None:
    """The same tokens with the same numbers, but for what half precision and batches round."""
    assert [one.id for one in ours] == [one.id for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.05)
        assert one.entropy_bits == pytest.approx(other.entropy_bits, abs=0.05)


def test_it_branches_and_crops_as_a_fresh_reading_does(made: Any, tmp_path: Path) -> None:
    engine, _, source = made
    first = write(engine, Prompt("", TURNS))
    drawn = tuple(record.id for record in first)
    other = first[3].candidates[1].id
    fresh = LocalEngine(tmp_path)
    fresh.load(source, LoadOptions(threads=1), lambda _: None)
    ids = tuple(token.id for token in fresh.render(Prompt("", TURNS)).tokens)
    branch = Prompt("", (), ids=(*ids, *drawn[:3]))
    ours = write(engine, branch, forced_ids=(other,))
    assert ours[0].id == other
    same(ours, write(fresh, branch, forced_ids=tuple(record.id for record in ours)))
    sequence = engine.sequence
    assert tuple(sequence.ids[: len(ids) + 3]) == branch.ids
    sequence.crop(len(ids) // 2)
    assert sequence.ids in ([], list(ids[: len(ids) // 2]))  # a recurrent state is read anew
    same(write(engine, Prompt("", TURNS), forced_ids=drawn), first)
    fresh.unload()
