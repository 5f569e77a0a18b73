"""Reading one template file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.sampling import LLAMA_CPP_ORDER, MOST, TRANSFORMERS_ORDER, SamplingParams
from chatapp.chat.template import Template, TemplateError, parse_template, template_text

WHOLE = '''
name = "poet"
description = "Speaks in verse"
system = """
You are a poet. \\
Rhyme."""
format = "chatml"
first_message = "Hail!"
stop = ["\\n\\n\\n"]

[sampling]
temperature = 1
top-k = 40
'''


def test_a_whole_template() -> None:
    assert parse_template("file", WHOLE) == Template(
        name="poet",
        description="Speaks in verse",
        system="You are a poet. Rhyme.",
        format="chatml",
        first_message="Hail!",
        sampling={"temperature": 1.0, "top_k": 40},
        stop=("\n\n\n",),
    )


def test_an_empty_file_is_a_template_that_adds_nothing() -> None:
    assert parse_template("file", "") == Template("file")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x", "not valid TOML"),
        ("colour = 1", "unknown field 'colour'; there are "),
        ("system = ['a']", "system must be a text"),
        ("sampling = []", "sampling must be a table"),
        ("[sampling]\ntop_p = 2", "top_p must be a number between 0 and 1, not 2"),
        ("[sampling]\ntop_p = true", "top_p must be a number"),
        ("[sampling]\nend = 'soon'", "end must be allow, forbid or force"),
        ("[sampling]\norder = ['top_k']", "order must name each of"),
        ("[sampling]\nbanned = ['the']", "a token's id must be a whole number"),
        (f"[sampling]\nbanned = [{MOST + 1}]", f"between 0 and {MOST}, not {MOST + 1}"),
        ("[sampling]\nlogit_bias = [[-1, 2]]", "a token's id must be a whole number"),
        ("[sampling]\nlogit_bias = [[1, nan]]", "a logit bias must be a number"),
        ("preset = 1", "preset must be a text"),
        ("stop = [1]", "stop must be a list"),
        ("name = 'none'", "cannot be called 'none'"),
    ],
)
def test_what_cannot_be_used_is_said(source: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words) as caught:
        parse_template("file", source)
    assert "\n" not in str(caught.value)


def test_a_template_carries_all_that_a_preset_can() -> None:
    source = """
preset = "warm"
[sampling]
order = "llama.cpp"
end = "forbid"
banned = [3, 4]
logit_bias = [[5, -1.5], [9, inf]]
"""
    template = parse_template("file", source)
    assert template.preset == "warm"
    sampling = SamplingParams(temperature=1.1).with_values(template.sampling)
    assert sampling == SamplingParams(
        temperature=1.1,
        order=LLAMA_CPP_ORDER,
        end="forbid",
        banned=(3, 4),
        logit_bias=((5, -1.5), (9, float("inf"))),
    )


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
IDS = st.integers(0, MOST)
SAMPLINGS = st.builds(
    SamplingParams,
    temperature=st.floats(0, 5),
    top_k=st.integers(0, MOST),
    min_p=st.floats(0, 1),
    presence_penalty=st.floats(-5, 5),
    banned=st.lists(IDS, max_size=4).map(tuple),
    logit_bias=st.lists(st.tuples(IDS, st.floats(allow_nan=False)), max_size=4).map(tuple),
    end=st.sampled_from(["allow", "forbid", "force"]),
    order=st.permutations(TRANSFORMERS_ORDER).map(tuple),
)


@given(
    texts=st.fixed_dictionaries({"description": TEXTS, "first_message": TEXTS}),
    system=TEXTS,
    stop=st.lists(TEXTS.filter(bool), max_size=3),
    sampling=SAMPLINGS,
)
def test_a_template_is_read_as_it_was_written(
    texts: dict[str, str], system: str, stop: list[str], sampling: SamplingParams
) -> None:
    stripped = {key: text.strip() for key, text in texts.items()}
    template = Template(
        "poet", **stripped, system=system.strip("\n"), format="chatml", stop=tuple(stop)
    )
    back = parse_template("file", template_text(template, sampling))
    assert SamplingParams(temperature=5, top_p=0.5).with_values(back.sampling) == sampling
    assert back == Template(
        "poet",
        **stripped,
        system=system.strip("\n"),
        format="chatml",
        stop=tuple(stop),
        sampling=back.sampling,
    )
