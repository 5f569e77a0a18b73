"""`chatapp bench` as the user calls it, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatapp.cli import main
from chatapp.commands.running import DONE, FAILED, WRONG_USAGE

ARGS = ["bench", "--prompt-tokens", "8", "--new-tokens", "4", "--rounds", "1", "--device", "cpu"]


def test_json_holds_what_the_table_is_made_of(
    tiny_gguf: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*ARGS, "--json", "-m", tiny_gguf]) == DONE
    told = json.loads(capfd.readouterr().out)
    assert (told["prompt_tokens"], told["new_tokens"], told["rounds"]) == (8, 4, 1)
    by_name = {one["name"]: one for one in told["measured"]}
    assert by_name["decode"]["ratio"] == 1
    assert by_name["prefill_16"]["ratio"] is None
    records = by_name["records"]
    assert records["tokens_per_second"] == pytest.approx(3 / records["seconds"][0])
    decode = by_name["decode"]["tokens_per_second"]
    assert records["ratio"] == pytest.approx(records["tokens_per_second"] / decode)


def test_the_table_names_model_rounds_and_what_the_cache_saves(
    tiny_gguf: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*ARGS, "-m", tiny_gguf]) == DONE
    table = capfd.readouterr().out
    assert "medians of 1 round in turn" in table
    # 8 + 3 passes with it; 8 + 9 + 10 + 11 without.
    assert "takes 11 tokens through its layers with the KV cache, and 38 without it" in table


def test_too_much_for_the_context_fails_in_one_line(
    tiny_gguf: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*ARGS, "--new-tokens", "99999999", "-m", tiny_gguf]) == FAILED
    assert "more than the model's context" in capfd.readouterr().err
    assert main([*ARGS, "--rounds", "0", "-m", tiny_gguf]) == WRONG_USAGE
