"""Looking inside, against transformers' own outputs and brute force, on several architectures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.xray import Passage
from chatapp.engine.engine import LocalEngine
from chatapp.engine.xray.xray import XRay
from tests.tiny_models import save_model

KINDS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "mistral", "neox", "phi")
TEXT = "The cat sat on the mat and the dog sat on the cat, all day long."
ROUNDING = 1e-4


def ignore(_: object) -> None:
    pass


@pytest.fixture(scope="module", params=KINDS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An engine with a tiny model, and transformers' own copy of it, in eager attention."""
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path_factory.mktemp("models") / request.param, request.param)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # a bias of 0 would be told right by who forgets it
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    engine = LocalEngine(folder / "prepared")
    engine.load(ModelSource(request.param, str(folder), "folder"), LoadOptions(), ignore)
    return engine, model


def outputs(engine: LocalEngine, model: Any) -> Any:
    """What transformers tells of the text."""
    ids = [piece.id for piece in engine.xray.passage(Passage(TEXT))]
    with torch.inference_mode():
        return ids, model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)


def test_attention_rows_are_transformers_own(tiny: Any) -> None:
    engine, model = tiny
    ids, out = outputs(engine, model)
    for layer, wanted in enumerate(out.attentions):
        for token in (0, 3, len(ids) - 1):
            for head in (0, wanted.shape[1] - 1):
                found = engine.xray.attention(Passage(TEXT), token, layer, head, False, ignore)
                assert len(found.rows) == 1 and len(found.rows[0]) == token + 1
                assert sum(found.rows[0]) == pytest.approx(1, abs=1e-5)
                np.testing.assert_allclose(
                    found.rows[0], wanted[0, head, token, : token + 1], atol=ROUNDING
                )
    mean = engine.xray.attention(Passage(TEXT), -1, 1, None, True, ignore)
    np.testing.assert_allclose(mean.rows, out.attentions[1][0].mean(dim=0), atol=ROUNDING)


def test_head_profiles_are_sums_of_the_row(tiny: Any) -> None:
    engine, model = tiny
    ids, out = outputs(engine, model)
    found = {
        (one.layer, one.head): one for one in engine.xray.head_profiles(Passage(TEXT), -1, ignore)
    }
    last = len(ids) - 1
    earlier = [place for place in range(last) if ids[place] == ids[last]]
    for layer, attention in enumerate(out.attentions):
        for head in range(attention.shape[1]):
            row = attention[0, head, last].double().numpy()
            one = found[layer, head]
            assert one.first == pytest.approx(row[0], abs=ROUNDING)
            assert one.previous == pytest.approx(row[last - 1], abs=ROUNDING)
            assert one.same == pytest.approx(sum(row[place] for place in earlier), abs=ROUNDING)
            after = [place + 1 for place in earlier if place + 1 < last]
            assert one.induction == pytest.approx(sum(row[place] for place in after), abs=ROUNDING)
            bits = -sum(p * math.log2(p) for p in row if p > 0)
            assert one.entropy_bits == pytest.approx(bits, abs=1e-3)


@torch.inference_mode()
def test_the_lens_ends_with_the_models_own_output(tiny: Any) -> None:
    engine, model = tiny
    _, out = outputs(engine, model)
    found = engine.xray.lens(Passage(TEXT), -1, 5, ignore)
    assert [one.layer for one in found.layers] == list(range(len(out.hidden_states)))
    own = torch.softmax(out.logits[0, -1].double(), dim=-1)
    last = found.layers[-1]
    assert last.kl_bits == 0 and last.rank == 1
    best = own.topk(5)
    assert [one.piece.id for one in last.top] == best.indices.tolist()
    np.testing.assert_allclose([one.score for one in last.top], best.values, atol=ROUNDING)
    # Behind the embedding: transformers' hidden state through its own norm and head, once.
    from chatapp.engine.xray.weights import Weights

    weights = Weights(model, "tiny")
    state = out.hidden_states[0][0, -1]
    logits = model.lm_head(weights.norm(state)) if hasattr(model, "lm_head") else None
    logits = model.embed_out(weights.norm(state)) if logits is None else logits
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = logits if cap is None else torch.tanh(logits / cap) * cap
    first = torch.softmax(logits.detach().double(), dim=-1)
    assert found.layers[0].top[0].piece.id == int(first.argmax())
    assert found.layers[0].top[0].score == pytest.approx(float(first.max()), abs=ROUNDING)
    kl = float((own * (own / first).log2()).sum())
    assert found.layers[0].kl_bits == pytest.approx(kl, abs=1e-2)


@pytest.mark.parametrize("by_head", [False, True])
def test_attributions_sum_to_the_logit(tiny: Any, by_head: bool) -> None:
    engine, model = tiny
    ids, out = outputs(engine, model)
    for token, target in ((-1, "id:5"), (4, None)):
        found = engine.xray.attribution(Passage(TEXT), token, target, by_head, ignore)
        wanted = ids[5] if target is None else 5
        logit = float(out.logits[0, token, wanted])
        assert found.logit == pytest.approx(logit, abs=1e-3)
        assert found.sum == pytest.approx(logit, abs=1e-3)
        heads = {part.head for part in found.parts if part.kind == "attention"}
        assert heads == (set(range(4)) if by_head else {None})


def test_a_changed_weight_changes_the_answers(tiny: Any) -> None:
    engine, _ = tiny
    xray = engine.xray
    before = xray.attention(Passage(TEXT), -1, 0, 0, False, ignore).rows
    lens = xray.lens(Passage(TEXT), -1, 1, ignore).layers[1]
    parameter = next(
        value
        for name, value in engine.runtime.model.named_parameters()
        if any(
            part in name for part in ("q_proj.weight", "c_attn.weight", "query_key_value.weight")
        )
    )
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.mul_(-1.5)
    try:
        assert xray.attention(Passage(TEXT), -1, 0, 0, False, ignore).rows != before
        assert xray.lens(Passage(TEXT), -1, 1, ignore).layers[1] != lens
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def test_anatomy_counts_what_transformers_counts(tiny: Any) -> None:
    engine, model = tiny
    found = engine.xray.anatomy()
    assert found.parameters == sum(one.numel() for one in model.parameters())
    assert found.parameters == sum(part.parameters for part in found.parts)
    assert found.tied == model.config.tie_word_embeddings
    assert (found.layers, found.heads, found.width) == (2, 4, 32)
    assert {"embedding", "attention", "mlp", "norm"} <= {part.name for part in found.parts}


def test_positions_are_told_as_the_model_has_them(tiny: Any) -> None:
    engine, model = tiny
    found = engine.xray.positions(7, ignore)
    if model.config.model_type == "gpt2":
        table = model.transformer.wpe.weight.detach().double()
        assert found.kind == "learned"
        wanted = torch.nn.functional.cosine_similarity(table, table[7:8])
        assert all(value == pytest.approx(float(wanted[one])) for one, value in found.falloff)
        return
    assert found.kind == "rotary"
    turns = [2 * math.pi / one for one in found.wavelengths]
    np.testing.assert_allclose(found.angles, [7 * one for one in turns], rtol=1e-5)
    assert found.falloff[0] == (0, pytest.approx(1.0))


@pytest.fixture(scope="module")
def xray(real_engine: LocalEngine) -> XRay:
    """The default model."""
    return real_engine.xray


@pytest.mark.model
def test_neighbors_are_brute_force(xray: XRay, reference: Any) -> None:
    for matrix in ("input", "output"):
        for by in ("cosine", "dot"):
            found = xray.neighbors("king", matrix, by, 5, ignore)
            assert found.spaced and found.piece.token == " king"
            table = reference.get_input_embeddings().weight.detach().double().numpy()
            row = table[found.piece.id]
            scores = table @ row
            if by == "cosine":
                scores = scores / (np.linalg.norm(table, axis=1) * np.linalg.norm(row))
            scores[found.piece.id] = -np.inf
            best = np.argsort(-scores)[:5]
            assert [one.piece.id for one in found.neighbors] == best.tolist()
            np.testing.assert_allclose([one.score for one in found.neighbors], scores[best])


@pytest.mark.model
def test_attention_lens_and_parts_of_the_real_model_are_transformers_own(
    xray: XRay, reference: Any
) -> None:
    ids = [piece.id for piece in xray.passage(Passage(TEXT))]
    before = reference.config._attn_implementation
    reference.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            out = reference(torch.tensor([ids]), output_attentions=True)
    finally:
        reference.set_attn_implementation(before)
    for layer, head, token in ((0, 0, 3), (14, 8, -1), (29, 4, len(ids) - 2), (29, None, -1)):
        found = xray.attention(Passage(TEXT), token, layer, head, False, ignore)
        rows = out.attentions[layer][0]
        wanted = (rows.mean(dim=0) if head is None else rows[head])[token]
        np.testing.assert_allclose(found.rows[0], wanted[: len(found.rows[0])], atol=ROUNDING)
    own = torch.softmax(out.logits[0, -1].double(), dim=-1)
    last = xray.lens(Passage(TEXT), -1, 5, ignore).layers[-1]
    np.testing.assert_allclose(
        [one.score for one in last.top], own.topk(5).values.numpy(), atol=ROUNDING
    )
    for by_head in (False, True):
        parts = xray.attribution(Passage(TEXT), -1, " mat", by_head, ignore)
        logit = float(out.logits[0, -1, parts.target.id])
        assert parts.sum == pytest.approx(logit, abs=1e-3)
        assert parts.logit == pytest.approx(logit, abs=1e-3)


@pytest.mark.model
@pytest.mark.parametrize(
    ("expression", "wanted"),
    [("woman - man + uncle", " aunt"), ("Paris - France + Germany", " Berlin")],
)
def test_sums_of_embeddings_find_what_they_should(xray: XRay, expression: str, wanted: str) -> None:
    found = xray.analogy(expression, 10, ignore)
    others = [one for one in found.results if not one.is_input]
    assert others[0].piece.token == wanted
    assert sum(one.is_input for one in found.results) == 3
    ranks = [one.rank for one in found.results[:10]]
    assert ranks == list(range(1, 11))


@pytest.mark.model
def test_a_map_keeps_distances_as_principal_components_do(xray: XRay, reference: Any) -> None:
    words = ["king", "queen", "prince", "princess", "man", "woman"]
    found = xray.embedding_map(words, "pca", ignore)
    table = reference.get_input_embeddings().weight.detach().double().numpy()
    rows = table[[point.piece.id for point in found.points]]
    covariance = np.cov(rows.T, bias=True)
    wanted = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    np.testing.assert_allclose(found.explained, wanted[:2] / wanted.sum(), rtol=1e-6)
    spread = np.var([point.x for point in found.points])
    assert spread == pytest.approx(wanted[0], rel=1e-6)


@pytest.mark.model
def test_texts_alike_are_nearer(xray: XRay) -> None:
    near = xray.similarity(Passage("The cat sleeps."), Passage("A cat is sleeping."), ignore)
    far = xray.similarity(Passage("The cat sleeps."), Passage("Taxes rose in 1987."), ignore)
    same = xray.similarity(Passage("one text"), Passage("one text"), ignore)
    assert near.embedding > far.embedding and near.hidden > far.hidden
    assert same.embedding == pytest.approx(1) and same.hidden == pytest.approx(1)


@pytest.mark.model
def test_anatomy_of_a_gguf_is_that_of_its_file(
    xray: XRay, reference: Any, loaded_model: Any
) -> None:
    found = xray.anatomy()
    assert found.parameters == sum(one.numel() for one in reference.parameters())
    assert (found.layers, found.heads, found.kv_heads, found.width) == (30, 9, 3, 576)
    assert found.tied and found.position == "rotary" and found.vocabulary == 49152
    assert found.kv_bytes_per_token == 2 * 30 * 3 * 64 * 2
    facts = loaded_model.facts
    assert found.kv_bytes_per_token * facts.context_length == facts.context_bytes


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda x: x.attention(Passage(TEXT), -1, 9, None, False, ignore), "there is no layer 9"),
        (lambda x: x.attention(Passage(TEXT), -1, 0, 9, False, ignore), "there is no head 9"),
        (lambda x: x.attention(Passage(TEXT), 999, 0, 0, False, ignore), "there is no token 999"),
        (lambda x: x.lens(Passage(""), -1, 5, ignore), "no text to look at"),
        (lambda x: x.lens(Passage("x" * 9999), -1, 5, ignore), "the model reads at most"),
        (lambda x: x.neighbors("strawberry", "input", "cosine", 5, ignore), "no single one"),
        (lambda x: x.neighbors("id:99999", "input", "cosine", 5, ignore), "there is no token"),
        (lambda x: x.analogy("king", 5, ignore), "is no sum"),
        (lambda x: x.embedding_map(["a", "b"], "pca", ignore), "at least three words"),
        (lambda x: x.embedding_map(["a", "b", "c"], "umap", ignore), "pca or tsne"),
        (lambda x: x.attribution(Passage(TEXT), -1, "id:99999", False, ignore), "id:99999"),
        (lambda x: x.positions(99999, ignore), "there is no position 99999"),
        (lambda x: x.cache_run(Passage("ab"), ignore, lambda: False), "at least 8"),
    ],
)
def test_what_cannot_be_looked_at_is_said(tmp_path: Path, ask: Any, words: str) -> None:
    folder = save_model(tmp_path / "llama", "llama")
    engine = LocalEngine(tmp_path)
    engine.load(ModelSource("llama", str(folder), "folder"), LoadOptions(), ignore)
    with pytest.raises(EngineError, match=words):
        ask(engine.xray)


def test_a_model_of_another_build_is_refused_by_name(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "mamba", "mamba")
    engine = LocalEngine(tmp_path)
    engine.load(ModelSource("mamba", str(folder), "folder"), LoadOptions(), ignore)
    with pytest.raises(EngineError, match="cannot be looked into"):
        engine.xray.attention(Passage(TEXT), -1, 0, 0, False, ignore)
    with pytest.raises(EngineError, match="cannot be looked into"):
        engine.xray.attribution(Passage(TEXT), -1, "id:5", False, ignore)


def test_the_cache_run_counts_passes(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "llama", "llama")
    engine = LocalEngine(tmp_path)
    engine.load(ModelSource("llama", str(folder), "folder"), LoadOptions(), ignore)
    found = engine.xray.cache_run(Passage(TEXT), ignore, lambda: False)
    assert [one.tokens for one in found.points] == [8, 16, 32, 64]
    assert [one.passes_without for one in found.points] == [36, 136, 528, 2080]
    assert engine.xray.cache_run(Passage(TEXT), ignore, lambda: True).points == ()


def test_a_text_is_read_once_and_goes_on_where_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapp.engine.xray.xray._PIECE", 16)
    folder = save_model(tmp_path / "llama", "llama")
    engine = LocalEngine(tmp_path)
    engine.load(ModelSource("llama", str(folder), "folder"), LoadOptions(), ignore)
    done: list[int] = []

    def give_up(progress: Progress) -> None:
        done.append(progress.done)
        if len(done) == 2:
            raise EngineError("nobody waits")

    with pytest.raises(EngineError, match="nobody waits"):
        engine.xray.lens(Passage(TEXT), -1, 5, give_up)
    length = len(engine.xray.passage(Passage(TEXT)))
    last = engine.xray.lens(Passage(TEXT), -1, 5, lambda progress: done.append(progress.done))
    assert done == [16, 32, 48, length - 1]
    earlier = engine.xray.lens(Passage(TEXT), 20, 5, lambda progress: done.append(progress.done))
    assert len(done) == 4  # it was read already
    fresh = LocalEngine(tmp_path)
    fresh.load(ModelSource("llama", str(folder), "folder"), LoadOptions(), ignore)
    for found, place in ((earlier, 20), (last, -1)):
        wanted = fresh.xray.lens(Passage(TEXT), place, 5, ignore)
        for one, other in zip(found.layers, wanted.layers, strict=True):
            assert one.kl_bits == pytest.approx(other.kl_bits, abs=ROUNDING)
