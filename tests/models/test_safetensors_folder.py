"""Model folders that are whole, cut, incomplete, pickled or something else."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatapp.chat.errors import ModelError
from chatapp.models.errors import DamagedModel, RefusedModel, UnknownModel
from chatapp.models.facts import FileFacts
from chatapp.models.safetensors_folder import INDEX, SINGLE, check_folder
from tests.models.samples import CONFIG, folder_files, sharded, write_folder

FILES = folder_files()
WEIGHTS = FILES[SINGLE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny")


def test_facts(folder: Path) -> None:
    assert check_folder(folder) == FileFacts(
        architecture="llama",
        weight_format="F32",
        context_length=128,
        vocab_size=16,
        layers=1,
        hidden_size=8,
        kv_values=0,  # the configuration names no heads
        parameters=128,
        tensors=1,
        has_chat_template=True,
        size=len(WEIGHTS),
    )


def test_shards(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", sharded(FILES))
    assert check_folder(folder).parameters == 64
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DamagedModel, match=r"lacks model-00002-of-00002\.safetensors"):
        check_folder(folder)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "a.bin", "", ".safetensors"]
)
def test_index_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "tiny", sharded(FILES))
    (folder / INDEX).write_text(json.dumps({"weight_map": {"one": name}}))
    with pytest.raises(DamagedModel, match="names the file"):
        check_folder(folder)


def test_cut_anywhere(folder: Path) -> None:
    for length in reversed(range(len(WEIGHTS))):
        os.truncate(folder / SINGLE, length)
        with pytest.raises(DamagedModel, match="cut off"):
            check_folder(folder)


def test_too_long(folder: Path) -> None:
    (folder / SINGLE).write_bytes(WEIGHTS + b"x")
    with pytest.raises(DamagedModel, match="not fully covered"):
        check_folder(folder)


def safetensors(header: object, data: int = 0) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def described(**change: object) -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change}


@pytest.mark.parametrize(
    "weights",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        struct.pack("<Q", 40_000) + b"[" * 40_000,
        safetensors(described(shape=[2**40, 2**40])),
        safetensors(described(shape=[-1])),
        safetensors(described(shape="2"), 8),
        safetensors(described(data_offsets=[8, 0]), 8),
        safetensors(described(data_offsets=[0, 2**70]), 8),
        safetensors(described(data_offsets=[0, 4]), 4),
        safetensors(described(data_offsets=[8, 16]), 16),
        safetensors({"w": None}),
        safetensors({"w": described()["w"], "v": described()["w"]}, 8),
    ],
)
def test_hostile_headers(folder: Path, weights: bytes) -> None:
    (folder / SINGLE).write_bytes(weights)
    with pytest.raises(DamagedModel) as caught:
        check_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").unlink()
    (folder / name).write_bytes(b"\x80\x04never opened")
    with pytest.raises(RefusedModel, match="pickled weights"):
        check_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(RefusedModel, match="pickled weights"):
        check_folder(folder)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="holds no model"):
        check_folder(tmp_path)


def test_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(UnknownModel, match=r"no config\.json"):
        check_folder(folder)


def test_without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DamagedModel, match="no tokenizer"):
        check_folder(folder)


def test_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(RefusedModel, match="adapter"):
        check_folder(folder)


def test_other_kinds_of_model(folder: Path) -> None:
    config = CONFIG | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RefusedModel, match="no causal language model"):
        check_folder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": ' * 5000, '{"a": ' + "9" * 9000 + "}"])
def test_damaged_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(DamagedModel, match=r"config\.json is damaged"):
        check_folder(folder)


def test_quantized(folder: Path) -> None:
    config = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    assert check_folder(folder).weight_format == "GPTQ 4-bit"


@settings(
    max_examples=200,
    deadline=2000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, len(WEIGHTS) - 1), st.integers(0, 255)), min_size=1))
def test_altered_weights(folder: Path, changes: list[tuple[int, int]]) -> None:
    """Whatever the bytes, the answer is facts or words."""
    data = bytearray(WEIGHTS)
    for place, value in changes:
        data[place] = value
    (folder / SINGLE).write_bytes(data)
    try:
        assert check_folder(folder).size == len(data)
    except ModelError as error:
        assert "\n" not in str(error)
