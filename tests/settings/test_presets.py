"""Presets: written, read back, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chatapp.chat.sampling import LLAMA_CPP_ORDER, ParameterError, SamplingParams, table_text
from chatapp.chat.template import Template
from chatapp.settings.presets import BUILT_IN, PresetError, Presets, parse_preset, with_preset

FULL = SamplingParams(
    temperature=1.25,
    top_k=7,
    typical_p=0.9,
    min_tokens=3,
    logit_bias=((5, -1.5), (9, float("-inf"))),
    banned=(3, 4),
    end="forbid",
    grammar='lark:start: "\x7f🙂\\n\t\u2028é"',
    order=LLAMA_CPP_ORDER,
)


@pytest.mark.parametrize("sampling", [SamplingParams(), FULL, *BUILT_IN.values()])
def test_a_preset_is_read_as_it_was_written(sampling: SamplingParams) -> None:
    assert parse_preset(table_text(sampling)) == sampling


def test_an_own_order_is_kept() -> None:
    order = tuple(reversed(LLAMA_CPP_ORDER))
    sampling = replace(SamplingParams(), order=order)
    assert parse_preset(table_text(sampling)).order == order


def test_presets_live_in_a_folder(tmp_path: Path) -> None:
    presets = Presets(tmp_path / "config" / "presets")
    assert presets.names() == list(BUILT_IN)
    assert presets.load("greedy").temperature == 0
    file = presets.save("my own", FULL)
    assert file.stat().st_mode & 0o777 == 0o600
    assert presets.names()[-1] == "my own"
    assert presets.load("my own") == FULL
    presets.save("greedy", FULL)
    assert presets.load("greedy") == FULL  # the user's own comes first
    presets.remove("my own")
    with pytest.raises(PresetError, match="there is no preset 'my own'; there are default"):
        presets.load("my own")
    with pytest.raises(PresetError, match="no preset of your own"):
        presets.remove("my own")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 41])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(PresetError, match="a preset's name is"):
        Presets(tmp_path).save(name, FULL)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("temperature = 9", "temperature must be a number between 0 and 5"),
        ("nothing = 1", "no setting is called 'nothing'"),
        ("= 1", "not valid TOML"),
        ('order = "mine"', "order must be transformers or llama.cpp"),
        ("order = 3", "order must be a name or a list"),
        ("banned = [-1]", "a token's id must be"),
        ("banned = [99999999999999999999999]", "a token's id must be a whole number between"),
        ("banned = 1", "banned must be a list"),
        ("logit_bias = [[1]]", "pairs of a token's id and a number"),
        ('end = "soon"', "end must be allow, forbid or force"),
    ],
)
def test_a_wrong_preset_is_refused_in_words(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        parse_preset(source)
    (tmp_path / "bad.toml").write_text(source)
    with pytest.raises(PresetError, match=r"bad\.toml: "):
        Presets(tmp_path).load("bad")


def test_a_template_stands_over_the_preset_it_names(tmp_path: Path) -> None:
    presets = Presets(tmp_path)
    presets.save("warm", FULL)
    template = Template("t", sampling={"top_k": 3}, preset="warm")
    settings = SamplingParams(temperature=0.1, top_p=0.2)
    whole = with_preset(template, presets)
    assert settings.with_values(whole.sampling) == replace(FULL, top_k=3)
    plain = Template("t", sampling={"top_k": 3})
    assert with_preset(plain, presets) == plain
    with pytest.raises(PresetError, match="there is no preset 'cold'"):
        with_preset(replace(template, preset="cold"), presets)
