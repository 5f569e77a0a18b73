"""A GGUF file → a folder that loads in a second.

transformers reads the file and dequantizes it; what it yields is kept as float32 safetensors, with
nothing rounded. The folder is built under another name and renamed when it is whole, so a
conversion that is cut short leaves nothing that looks like a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from chatapp.chat.errors import EngineError, first_line
from chatapp.chat.facts import ModelSource, Progress, Report
from chatapp.engine.runtimes.gguf_reader import read_gguf
from chatapp.engine.runtimes.progress import ProgressBar, report_weights
from chatapp.engine.runtimes.whole import check_gguf_used

PREPARED_FACTS = "chatapp.json"
"""What the prepared folder knows about its origin."""

_DIGITS_APART = frozenset(
    {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
)
"""Pre-tokenizers that take digits one by one and go on as GPT-2's: llama.cpp, llama-vocab.cpp.

transformers knows none of them. Where llama.cpp is there it tokenizes by itself; elsewhere the
converted tokenizer is put right for these."""

_LAYOUT = "2"
"""Changes when the content of prepared folders does, so that old ones are not used."""


def prepare_gguf(source: ModelSource, prepared: Path, on_progress: Report) -> Path:
    """The prepared folder of a GGUF file, converted now if it never was. Raises EngineError."""
    sha256 = source.sha256 or hash_file(Path(source.path), on_progress)
    folder = prepared / f"{sha256[:32]}-{_LAYOUT}"
    if (folder / PREPARED_FACTS).is_file():
        return folder
    try:
        prepared.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=prepared))
    except OSError as error:
        raise EngineError(f"cannot write to {prepared}: {error.strerror}") from error
    try:
        _convert(source, sha256, building, on_progress)
        try:
            building.rename(folder)
        except OSError:
            # Another process was quicker; its folder is as good as ours.
            if not (folder / PREPARED_FACTS).is_file():
                raise
    except EngineError:
        raise
    except OSError as error:
        raise EngineError(
            f"cannot prepare {source.path} in {prepared}: {error.strerror or error}"
        ) from error
    except Exception as error:  # transformers and gguf raise whatever their parsing meets
        raise EngineError(f"cannot convert {source.path}: {first_line(error)}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def hash_file(file: Path, on_progress: Report) -> str:
    """A file's SHA-256, in hex. Raises EngineError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        total = file.stat().st_size
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
                on_progress(Progress("checking the file", stream.tell(), total, "bytes"))
    except OSError as error:
        raise EngineError(f"cannot read {file}: {error.strerror}") from error
    return digest.hexdigest()


def _convert(source: ModelSource, sha256: str, folder: Path, on_progress: Report) -> None:
    from safetensors.torch import save_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = Path(source.path)
    place = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    on_progress(Progress("converting: tokenizer", 0, 0))
    reader = read_gguf(file)
    with _hooked(reader, on_progress), report_weights(on_progress):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
        field = reader.get_field("tokenizer.ggml.pre")
        if field is not None and field.contents() in _DIGITS_APART:
            _take_digits_apart(tokenizer)
        on_progress(Progress("converting: reading the file", 0, 0))
        model = AutoModelForCausalLM.from_pretrained(file.parent, **place)
    check_gguf_used(file, reader, model)
    on_progress(Progress("converting: writing", 0, 0))
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the values are plain numbers from here on
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
    facts = {
        "name": source.name,
        "sha256": sha256,
        "weight_format": source.weight_format or _weight_format(reader),
    }
    written = folder / PREPARED_FACTS
    written.write_text(json.dumps(facts), "utf-8")
    with written.open("rb") as stream:
        os.fsync(stream.fileno())


def _take_digits_apart(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _weight_format(reader: Any) -> str:
    """The type most of a GGUF's weights have: Q4_1, Q8_0."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    return sizes.most_common(1)[0][0] if sizes else "?"


@contextmanager
def _hooked(reader: Any, on_progress: Report) -> Iterator[None]:
    """While it lasts, transformers takes a file from its reader here, and tells how far it is.

    By itself it reads the header again and again and makes the table of names once for each module,
    20 seconds for a small model; it offers no hook, so the names it looks up are replaced.
    """
    import gguf
    import transformers.modeling_gguf_pytorch_utils as module

    def bar(items: Any, **_kwargs: Any) -> ProgressBar:
        return ProgressBar(items, len(items), "converting", on_progress)

    hooks: list[tuple[Any, str, Any]] = [
        (gguf, "GGUFReader", lambda _file: reader),
        (gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
        (module, "tqdm", bar),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in hooks]
    try:
        for hook in hooks:
            setattr(*hook)
        yield
    finally:
        for original in originals:
            setattr(*original)
