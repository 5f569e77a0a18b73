"""Reading one template file."""

from __future__ import annotations

import pytest

from chatapp.chat.template import Template, TemplateError, parse_template

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
        ("stop = [1]", "stop must be a list"),
        ("name = 'none'", "cannot be called 'none'"),
    ],
)
def test_what_cannot_be_used_is_said(source: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words) as caught:
        parse_template("file", source)
    assert "\n" not in str(caught.value)
