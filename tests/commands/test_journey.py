"""`chatapp journey`: its stages tell what `ask --json` told of the same reply."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatapp.chat.numbers import decimal, percent
from chatapp.chat.text import visible_token
from tests.conftest import Call, one_line
from tests.tiny_models import save_model

STAGES = [
    "text",
    "tokens",
    "vectors",
    "position",
    "attention",
    "MLP",
    "layers",
    "logits",
    "softmax",
    "filters",
    "draw",
    "appended",
    "again",
    "end",
]


def test_every_stage_tells_of_the_reply(call: Call, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "llama", "llama"))
    drawn = ("--seed", "3", "--max-tokens", "6", "-m", folder)
    asked = call("ask", "hello", "--json", "--trace", *drawn)
    start, *tokens, end = map(json.loads, asked.stdout.splitlines())
    done = call("journey", "hello", "--token", "2", "--json", *drawn)
    stages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [stage["name"] for stage in stages] == STAGES
    assert all(stage["type"] == "stage" and stage["sentence"] for stage in stages)
    text = {stage["name"]: "\n".join((stage["sentence"], *stage["lines"])) for stage in stages}
    token = tokens[2]
    before = start["prompt_tokens"] + 2
    assert visible_token(bytes(token["bytes"])) in text["text"]
    assert f"into {before} tokens" in text["tokens"]
    assert f"position {before - 1} " in text["position"]
    model = next(stage for stage in token["trace"]["stages"] if stage["stage"] == "model")
    for one in model["tokens"][:8]:
        assert decimal(one["logit"]) in text["logits"]
        assert percent(one["prob"]) in text["softmax"]
    for stage in token["trace"]["stages"]:
        assert str(stage["alive"]) in text["filters"]
    assert f"The seed is {start['seed']}" in next(
        stage["remark"] for stage in stages if stage["name"] == "draw"
    )
    assert f"as token {before}." in text["appended"]
    for one in tokens[2:]:
        assert percent(one["prob"]) in text["again"]
    for one in tokens:
        assert percent(one["p_end"]) in text["end"]
    reasons = {"length": "the most tokens it was allowed", "stop": "chose an end token"}
    assert reasons[end["finish_reason"]] in text["end"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([" "], 2, "there is nothing to ask"),
        (["hi", "--token", "-1"], 2, "token must be"),
    ],
)
def test_wrong_calls(call: Call, arguments: list[str], status: int, words: str) -> None:
    assert words in one_line(call("journey", *arguments), status)


def test_a_token_that_is_not_there(call: Call, tiny_gguf: str) -> None:
    done = call("journey", "hi", "--token", "99", "--max-tokens", "3", "-m", tiny_gguf)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no token 99" in done.stderr.splitlines()[-1]
