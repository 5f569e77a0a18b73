"""Damaged folders of models: each loads or is refused in words, quickly and in little memory."""

from __future__ import annotations

import copy
import json
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.engine.engine import LocalEngine
from chatapp.models.gguf_file import check_gguf
from chatapp.models.safetensors_folder import check_folder
from tests.tiny_models import save_gguf, save_model

SECONDS = 10.0
"""Of processor time: what is tiny takes a tenth of one."""
MEBIBYTES = 700
JSON_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**9, 10**18, float("inf"), "", "x", "{{", "{% for %}"),
    *([], {}, [1, 2], ["a"], {"a": 1}, [[]], "float32", 2**31, -(2**31), "../../x"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values inside of a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 5)):
            found += places(value[index], (*path, index))
    return found


def change_json(file: Path, chance: random.Random) -> None:
    """Put something else in the place of one or two values, or take them out."""
    value = json.loads(file.read_text())
    for _ in range(chance.choice((1, 1, 2))):
        every = places(value)
        # The vocabulary has most of the values; what stands above it matters as much.
        *above, last = chance.choice([one for one in every if len(one) <= 3] or every)
        owner = value
        for key in above:
            owner = owner[key]
        if chance.random() < 0.3:
            del owner[last]
        else:
            owner[last] = copy.deepcopy(chance.choice(VALUES))
    file.write_text(json.dumps(value))


def change_bytes(file: Path, chance: random.Random, within: int) -> None:
    """Flip, cut or repeat bytes near the start of a file."""
    data = bytearray(file.read_bytes())
    match chance.randrange(4):
        case 0:
            del data[chance.randrange(len(data)) :]
        case 1:
            data[:0] = bytes(8)
        case _:
            for _ in range(chance.choice((1, 1, 3, 20))):
                data[chance.randrange(min(within, len(data)))] = chance.randrange(256)
    file.write_bytes(data)


def outcome(load: Callable[[], object]) -> str:
    """What comes of it: ok, words, other, slow, memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    try:
        load()
        result = "ok"
    except ChatappError as error:
        result = "words" if 10 < len(str(error)) < 1000 and "\n" not in str(error) else "other"
    except BaseException as error:
        result = f"other: {type(error).__name__}: {str(error)[:200]}"
    if time.process_time() - began > SECONDS:
        return "slow"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return "memory" if grown > MEBIBYTES * 1024 else result


def load_folder(folder: Path) -> None:
    check_folder(folder)
    engine = LocalEngine(folder / "prepared")
    source = ModelSource("tiny", str(folder), "folder")
    engine.load(source, LoadOptions(device="cpu"), lambda _: None)


def load_gguf(file: Path) -> None:
    check_gguf(file)
    engine = LocalEngine(file.parent / "prepared")
    engine.load(ModelSource("tiny", str(file), "gguf"), LoadOptions(), lambda _: None)


def run(folder: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    whole = save_model(folder / "whole", "llama")
    gguf = save_gguf(folder / "whole.gguf")
    load_folder(whole)
    load_gguf(gguf)
    counted: Counter[str] = Counter()
    for number in range(count):
        kind = chance.choice((*JSON_FILES, *JSON_FILES, "model.safetensors", "gguf"))
        if kind == "gguf":
            file = folder / f"{number}.gguf"
            shutil.copy(gguf, file)
            change_bytes(file, chance, 12_000)
            result = outcome(lambda: load_gguf(file))  # noqa: B023 (called here)
            file.unlink()
        else:
            copy = Path(shutil.copytree(whole, folder / str(number)))
            if kind == "model.safetensors":
                change_bytes(copy / kind, chance, 3000)
            else:
                change_json(copy / kind, chance)
            result = outcome(lambda: load_folder(copy))  # noqa: B023 (called here)
            shutil.rmtree(copy)
        counted[result.partition(":")[0]] += 1
        assert result in ("ok", "words"), (seed, number, kind, result)
    print(dict(counted))
    assert counted["words"] > count // 10  # the damage is real


def test_damaged_models_are_refused_in_words(tmp_path: Path) -> None:
    run(tmp_path, 11, 25)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_two_thousand_damaged_models(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 100)
