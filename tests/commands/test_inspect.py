"""`chatapp inspect`: what it writes, and how it fails. The numbers are tested in tests/engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rich.cells import cell_len

from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.xray import Passage
from chatapp.cli import build_parser
from chatapp.commands.inspect import Answer, look
from chatapp.link.client import EngineClient
from chatapp.settings.paths import Paths
from tests.conftest import Call
from tests.tiny_models import save_model

TEXT = "the cat sat on the mat"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["tokens", ""], 1, "there is no text to look at"),
        (["neighbors", "id:99999999"], 1, "ids go from id:0 to id:258"),
        (["neighbors", "hippopotamus"], 1, "no single one"),
        (["analogy", "woman"], 1, "is no sum"),
        (["attention", TEXT, "--token", "99"], 1, "there is no token 99"),
        (["attention", TEXT, "--picture", "heat.svg"], 2, "add --all"),
        (["attention", TEXT, "--all", "--picture", "heat.png"], 2, "ends in .svg"),
        (["lens", TEXT, "--token", "x"], 2, "no whole number"),
        (["cache", "a"], 1, "give one of at least 8"),
        (["tokens", "x" * 600], 1, "reads at most 512"),
        ([], 2, "VIEW"),
    ],
)
def test_wrong_calls(
    call: Call, tiny_gguf: str, arguments: list[str], status: int, words: str
) -> None:
    model = ["-m", tiny_gguf] if arguments else []
    done = call("inspect", *arguments, *model)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    assert words in done.stderr.strip().splitlines()[-1]  # what stands before is progress


def test_tokens_as_a_table_and_as_json(call: Call, tiny_gguf: str) -> None:
    done = call("inspect", "tokens", "hé", "-m", tiny_gguf)
    assert "2 characters are 3 tokens" in done.stdout
    assert "part of a character" in done.stdout
    found = json.loads(call("inspect", "tokens", "hé", "--json", "-m", tiny_gguf).stdout)
    assert list(found)[:3] == ["type", "model", "runtime"]
    assert found["type"] == "tokens" and found["runtime"] == "llama.cpp"
    assert [one["bytes"] for one in found["tokens"]] == [[0x68], [0xC3], [0xA9]]
    assert [one["kind"] for one in found["tokens"]] == ["word", "byte", "byte"]
    assert found["characters"] == 2


def test_two_tokenizers_beside_each_other(call: Call, tiny_gguf: str, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "gpt2", "gpt2"))
    done = call("inspect", "tokens", "abc", "-m", tiny_gguf, "--beside", folder, "--json")
    found = json.loads(done.stdout)
    for tokens in (found["tokens"], found["beside"]["tokens"]):
        assert bytes(byte for one in tokens for byte in one["bytes"]) == b"abc"
    assert found["beside"]["model"] != found["model"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineClient]:
    """A tiny model on transformers, started once."""
    home = tmp_path_factory.mktemp("inspected")
    folder = save_model(home / "llama", "llama")
    engine = EngineClient.at(Paths(*(home / name for name in ("config", "data", "cache", "state"))))
    await engine.load(ModelSource("llama", str(folder), "folder"), LoadOptions(), lambda _: None)
    yield engine
    await engine.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_every_view_answers_in_the_form_that_was_promised(engine: EngineClient) -> None:
    class Stand:
        """A session as far as the command knows one."""

        def __init__(self) -> None:
            self.engine = engine

    async def ask(*arguments: str) -> Answer:
        args = build_parser().parse_args(["inspect", *arguments])
        stand: Any = Stand()
        answer = await look(stand, args, lambda _: None)
        json.dumps(answer.json, allow_nan=False)
        assert all(cell_len(row) <= 80 for row in answer.view(80).rows(80))
        return answer

    near = (await ask("neighbors", "id:5", "--matrix", "output", "--by", "dot")).json
    assert set(near) == {"id", "token", "matrix", "by", "neighbors"}
    assert (near["id"], near["matrix"], near["by"]) == (5, "output", "dot")
    assert set(near["neighbors"][0]) == {"id", "token", "score"}
    sums = (await ask("analogy", "id:5 - id:6 + id:7", "--count", "3")).json
    assert [term["sign"] for term in sums["terms"]] == [1, -1, 1]
    assert {5, 6, 7} <= {one["id"] for one in sums["results"] if one["is_input"]}
    assert set(sums["results"][0]) == {"rank", "id", "token", "score", "is_input"}
    assert set((await ask("similarity", "a", "b")).json) == {"embedding", "hidden"}
    points = await ask("map", "id:5", "id:6", "id:7")
    assert set(points.json) == {"method", "explained", "points"}
    assert points.picture is not None and "</svg>" in points.picture()
    row = (await ask("attention", TEXT, "--layer", "0", "--head", "1", "--token", "2")).json
    assert (row["layer"], row["head"], row["token"], len(row["row"])) == (0, 1, 2, 3)
    every = await ask("attention", TEXT, "--all")
    assert len(every.json["rows"]) == len(every.json["tokens"])
    assert every.json["head"] is None
    assert every.picture is not None and "</svg>" in every.picture()
    heads = (await ask("attention", TEXT, "--heads")).json["heads"]
    assert {(one["layer"], one["head"]) for one in heads} == {
        (layer, head) for layer in range(2) for head in range(4)
    }
    layers = (await ask("lens", TEXT)).json["layers"]
    assert [one["layer"] for one in layers] == [0, 1, 2]
    assert set(layers[0]) == {"layer", "top", "kl_bits", "rank"}
    assert (layers[-1]["rank"], layers[-1]["kl_bits"]) == (1, 0)
    parts = (await ask("attribution", TEXT, "--target", "id:5", "--heads")).json
    assert parts["sum"] == pytest.approx(parts["logit"], abs=1e-3)
    assert parts["sum"] == pytest.approx(sum(one["value"] for one in parts["parts"]))
    assert parts["target"]["id"] == 5
    assert {one.get("head") for one in parts["parts"]} >= {0, 1, 2, 3}
    assert (await ask("positions", "3")).json["kind"] == "rotary"
    built = (await ask("anatomy", "--measure")).json
    assert built["tokens_per_second"] > 0
    assert sum(one["parameters"] for one in built["parts"]) == built["parameters"]
    kept = (await ask("cache", TEXT)).json["points"][0]
    assert (kept["passes_with"], kept["passes_without"]) == (8, 36)
    chat = (await ask("tokens", "hello", "--chat")).json
    assert b"hello" in bytes(byte for one in chat["tokens"] for byte in one["bytes"])


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.usefixtures("home_with_model")
def test_a_sum_of_words_of_the_real_model(call: Call) -> None:
    done = call("inspect", "analogy", "woman - man + uncle", "--json")
    results = json.loads(done.stdout)["results"]
    assert next(one["token"] for one in results if not one["is_input"]) == " aunt"


def test_a_picture_never_takes_the_place_of_a_file(
    call: Call, tiny_gguf: str, tmp_path: Path
) -> None:
    picture = tmp_path / "map.svg"
    words = ("id:5", "id:6", "id:7", "-m", tiny_gguf)
    assert call("inspect", "map", *words, "--picture", str(picture)).returncode == 0
    assert "</svg>" in picture.read_text()
    again = call("inspect", "map", *words, "--picture", str(picture))
    assert again.returncode == 1 and "is there already" in again.stderr


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.usefixtures("home_with_model")
def test_a_picture_of_words_of_the_real_model(call: Call, tmp_path: Path) -> None:
    picture = tmp_path / "map.svg"
    words = ("king", "queen", "prince", "princess", "man", "woman")
    done = call("inspect", "map", *words, "--picture", str(picture))
    assert done.returncode == 0 and all(word in done.stdout for word in words)
    assert all(word in picture.read_text() for word in words)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_question_that_is_withdrawn_is_given_up(engine: EngineClient) -> None:
    heard = asyncio.Event()
    told: list[str] = []

    def report(progress: Progress) -> None:
        told.append(progress.stage)
        heard.set()

    long = Passage(ids=(5,) * 128)
    asked = asyncio.ensure_future(engine.cache_run(long, on_progress=report))
    async with asyncio.timeout(60):
        await heard.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        known = len(told)
        await engine.positions(3, on_progress=lambda _: None)  # its turn came
    assert len(told) == known < 128  # of as many steps that would have been measured
