"""Models that are refused, each in one line that says why; the others load in every other test."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.prompt import Prompt, PromptFormat, RenderedPrompt, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from chatapp.engine.runtimes.whole import check_steps
from tests.tiny_models import save_gguf, save_model

ON_TRANSFORMERS = LoadOptions(runtime="transformers", device="cpu")


def load(path: Path, kind: str = "folder") -> LocalEngine:
    engine = LocalEngine(path.parent / "prepared")
    source = ModelSource("tiny", str(path), "gguf" if kind == "gguf" else "folder")
    engine.load(source, ON_TRANSFORMERS, lambda _: None)
    return engine


def refused(path: Path, kind: str = "folder") -> str:
    """Why a model isn't loaded."""
    with pytest.raises(EngineError) as raised:
        load(path, kind)
    words = str(raised.value)
    assert "\n" not in words and len(words) < 600
    return words


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(llama, tmp_path / "llama"))


def change(file: Path, edit: Callable[[Any], object]) -> None:
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize("kind", ["gpt1", "xlm"])
def test_a_model_without_a_kv_cache_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind, chat=False)
    assert "which keeps no KV cache" in refused(folder)


@pytest.mark.parametrize(
    "lost", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"]
)
def test_a_missing_tensor_is_named(folder: Path, lost: str) -> None:
    weights = load_file(folder / "model.safetensors")
    assert lost in weights
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    words = refused(folder)
    assert "lacks weights" in words or f"lacks {lost}" in words


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "model.layers.0.self_attn.q_proj.bias" in refused(folder)


def test_a_missing_tensor_is_named_even_where_another_makes_up_for_its_size(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["other"] = weights.pop("model.norm.weight").clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lacks model.norm.weight" in refused(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 0),
        ("hidden_size", 10**9),
        ("hidden_size", "32"),
        ("vocab_size", 10**12),
        ("intermediate_size", -1),
        ("num_attention_heads", 0),
        ("max_position_embeddings", 10**15),
        ("num_key_value_heads", 1.5),
    ],
)
def test_sizes_are_held_against_the_weights(folder: Path, name: str, value: object) -> None:
    change(folder / "config.json", lambda config: config.update({name: value}))
    words = refused(folder)
    assert name in words and "doesn't fit the weights" in words


def test_a_configuration_of_a_larger_model_is_refused_before_it_is_made(folder: Path) -> None:
    change(folder / "config.json", lambda config: config.update(num_hidden_layers=9))
    assert "lacks weights" in refused(folder)


def test_a_pipe_in_the_folder_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "generation_config.json.pipe")
    assert "is no plain file" in refused(folder)


def panics(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": ""}, "content": "x"}


def huge_id(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"]["far"] = 10**9


def no_vocabulary(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"] = {"a": 0}
    tokenizer["model"]["merges"] = []


def no_table(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"] = 7


@pytest.mark.parametrize("edit", [panics, huge_id, no_vocabulary, no_table])
def test_a_damaged_tokenizer_is_refused_in_words(
    folder: Path, edit: Callable[[Any], object]
) -> None:
    change(folder / "tokenizer.json", edit)
    assert str(folder) in refused(folder) or "tokenizer" in refused(folder)


CONFIGS = {
    "t5": lambda: transformers.T5Config(d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=8),
    "bart": lambda: transformers.BartConfig(d_model=32, encoder_layers=1, decoder_layers=1),
    "bert": lambda: transformers.BertConfig(hidden_size=32, num_hidden_layers=1),
    "whisper": lambda: transformers.WhisperConfig(d_model=32),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_writes_no_chat_is_refused_by_what_it_is(folder: Path, kind: str) -> None:
    config = CONFIGS[kind]()
    config.vocab_size = 64
    config.save_pretrained(folder)
    if kind == "bert":
        change(folder / "config.json", lambda one: one.update(architectures=["BertForMaskedLM"]))
    words = refused(folder)
    assert kind in words.lower() and "class" not in words


def test_an_unknown_scaling_of_positions_is_named(folder: Path) -> None:
    rope = {"rope_type": "spiral", "rope_theta": 10000.0, "factor": 2.0}
    change(folder / "config.json", lambda config: config.update(rope_parameters=rope))
    assert "scales its positions by 'spiral', and transformers knows" in refused(folder)


class Forgets:
    """A runtime whose steps know nothing of what stands before."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.facts = inner.facts

    def sequence(self) -> Any:
        runtime = self._inner

        class Sequence:
            def read(self, ids: Any, *, last: int = 1) -> Any:
                return runtime.sequence().read(ids, last=last)

        return Sequence()


def test_what_does_not_go_on_from_its_cache_is_refused(llama: Path) -> None:
    runtime = load(llama).runtime
    check_steps(runtime, "whole")
    with pytest.raises(EngineError, match="doesn't go on from its KV cache"):
        check_steps(Forgets(runtime), "forgetful")


def test_a_model_that_hands_no_cache_on_is_refused_in_words(tmp_path: Path) -> None:
    words = refused(save_model(tmp_path / "recurrent", "recurrent_gemma"))
    assert "can't be run token by token: it hands no KV cache on; choose" in words


def test_a_gguf_that_is_not_read_whole_is_refused(tmp_path: Path) -> None:
    whole = save_gguf(tmp_path / "whole.gguf")
    load(whole, "gguf")
    biased = save_gguf(tmp_path / "biased.gguf", extra={"blk.0.attn_q.bias": (32,)})
    assert "blk.0.attn_q.bias" in refused(biased, "gguf")
    turned = save_gguf(tmp_path / "turned.gguf", extra={"rope_freqs.weight": (4,)})
    assert "rope_freqs.weight" in refused(turned, "gguf")
    scaled = save_gguf(tmp_path / "scaled.gguf", rope_scaling="yarn")
    assert "'yarn'" in refused(scaled, "gguf")
    assert "llama.cpp" in refused(scaled, "gguf")


def test_a_reply_ends_at_the_token_that_the_template_writes_behind_a_turn(folder: Path) -> None:
    """Whatever config.json names: fine-tunes of base models often keep the base's end."""
    ends = load(folder).runtime.facts.end_ids
    closing = "<|start|>"  # special, and no configuration names it
    change(
        folder / "tokenizer_config.json",
        lambda config: config.update(
            chat_template="{% for m in messages %}{{ m.content + '" + closing + "' }}{% endfor %}"
        ),
    )
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    engine = load(folder)
    token_id = engine.runtime.tokenizer.control_id(closing)
    assert token_id is not None and token_id not in ends
    assert token_id in engine.runtime.facts.end_ids
    options = GenerateOptions(max_tokens=3, forced_ids=(token_id,))
    prompt = Prompt("", (Turn("user", "hi"),))
    events = list(engine.generate(prompt, options, Controls(SamplingParams())))
    steps = [event for event in events if isinstance(event, TokenStep)]
    assert isinstance(events[-1], GenerationEnd) and events[-1].reason is FinishReason.STOP
    logits = reference_logits(folder, engine.render(prompt))
    shares = np.exp(logits - logits.max())
    wanted = shares[list(engine.runtime.facts.end_ids)].sum() / shares.sum()
    assert steps[0].record.p_end == pytest.approx(wanted, rel=1e-4)


def reference_logits(folder: Path, rendered: RenderedPrompt) -> Any:
    """transformers' own logits behind a prompt."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        ids = torch.tensor([[piece.id for piece in rendered.tokens]])
        return model(ids).logits[0, -1].double().numpy()


def test_what_the_makers_recommend_is_told(folder: Path) -> None:
    assert load(folder).runtime.facts.note == ""
    file = folder / "generation_config.json"
    change(file, lambda one: one.update(temperature=0.6, top_k=20, do_sample=True))
    note = load(folder).runtime.facts.note
    assert "recommend temperature 0.6, top-k 20;" in note


def test_what_a_gguf_says_its_makers_recommend_is_told(tmp_path: Path) -> None:
    file = save_gguf(tmp_path / "told.gguf", temperature=0.6)
    source = ModelSource("told", str(file), "gguf")
    engine = LocalEngine(tmp_path / "prepared")
    facts = engine.load(source, LoadOptions(runtime="llama.cpp"), lambda _: None)
    assert facts.note == "its makers recommend temperature 0.6; /set takes them"
    silent = ModelSource("silent", str(save_gguf(tmp_path / "silent.gguf")), "gguf")
    assert engine.load(silent, LoadOptions(runtime="llama.cpp"), lambda _: None).note == ""


def test_an_adapter_beside_its_base_is_said(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert "adapter_config.json) isn't used" in load(folder).runtime.facts.note


@pytest.mark.parametrize("left", ["tokenizer.model", "qwen.tiktoken", "vocab.json"])
def test_a_folder_without_a_tokenizer_json_says_what_to_do(folder: Path, left: str) -> None:
    for file in folder.glob("*token*.json"):
        file.unlink()
    (folder / left).write_bytes(b"\x00nothing")
    words = refused(folder)
    assert "tokenizer.json, or a .gguf" in words


def test_ids_past_the_rows_are_refused_in_words(folder: Path) -> None:
    def add(tokenizer: dict[str, Any]) -> None:
        last = tokenizer["added_tokens"][-1]
        tokenizer["added_tokens"].append({**last, "id": last["id"] + 1, "content": "<far>"})

    change(folder / "tokenizer.json", add)
    engine = load(folder)
    far = PromptFormat("far", "<far>{{ messages[0].content }}")
    prompt = Prompt("", (Turn("user", "hi"),), far)
    with pytest.raises(EngineError, match=r"'<far>' .*the tokenizer or the format is another"):
        list(engine.generate(prompt, GenerateOptions(), Controls(SamplingParams())))


def test_a_context_goes_as_far_as_kept_keys_stay_true(tmp_path: Path) -> None:
    """Beyond it a text that is read on has other numbers than one that is read afresh."""
    folder = save_model(tmp_path / "llama", "llama")
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 32,
    }
    change(folder / "config.json", lambda one: one.update(rope_parameters=rope))
    runtime = load(folder).runtime
    assert runtime.facts.context_length == 32
    assert "the context is 32 tokens" in runtime.facts.note
    ids = [7 + place % 50 for place in range(32)]
    stepped = runtime.sequence()
    rows = [stepped.read([one]).logits[-1] for one in ids]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        whole = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(rows, whole, atol=1e-4)
