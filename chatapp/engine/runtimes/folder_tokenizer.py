"""The tokenizer in a model's folder: tokenizer.json, or what transformers makes of older files.

Read with the `tokenizers` library alone, since building transformers' wrapper around the same file
takes twenty times as long; transformers is asked only for folders without a tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from chatapp.chat.errors import EngineError, first_line
from chatapp.engine.runtimes.plain_text import control_tokens, plain_tokenizers
from chatapp.engine.runtimes.token_bytes import LeadingSpace, token_decoding
from chatapp.engine.runtimes.tokenizer import ModelTokenizer, Where

_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Chat templates know special tokens as bos_token, …"""

_LARGEST_ID = 10_000_000
"""No vocabulary comes near; a table of all ids is made."""


class FolderTokenizer(ModelTokenizer):
    """A tokenizer that the `tokenizers` library runs."""

    def __init__(
        self,
        backend: Tokenizer,
        *,
        special_tokens: Mapping[str, str] | None = None,
        chat_template: str | None = None,
        add_bos: bool | None = None,
    ) -> None:
        """Wrap a tokenizer.

        `add_bos`: whether a text begins with the BOS token; None leaves it to the backend.
        """
        backend.no_truncation()
        backend.no_padding()
        super().__init__(
            controls=control_tokens(backend),
            special_tokens=special_tokens or {},
            chat_template=chat_template,
        )
        self._backend = backend
        self._add_bos = add_bos

    @classmethod
    def from_folder(cls, folder: Path | str) -> FolderTokenizer:
        """Read the tokenizer of a model's folder. Raises EngineError."""
        folder = Path(folder)
        config = _read_json(folder / "tokenizer_config.json")
        template = _chat_template(folder, config)
        names = {**_read_json(folder / "special_tokens_map.json"), **config}
        wanted = config.get("add_bos_token")
        add_bos = wanted if isinstance(wanted, bool) else None
        if (folder / "tokenizer.json").is_file():
            return cls(
                _read_backend(folder / "tokenizer.json"),
                special_tokens=_special_tokens(names),
                chat_template=template,
                add_bos=add_bos,
            )
        wrapper = _read_with_transformers(folder)
        return cls(
            wrapper.backend_tokenizer,
            special_tokens={k: str(v) for k, v in wrapper.special_tokens_map.items()},
            chat_template=template,
            add_bos=add_bos,
        )

    @property
    def vocab_size(self) -> int:
        return len(self.byte_table)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        if self._add_bos is not None:
            bos = self._special_id("bos_token")
            return (bos,) if self._add_bos and bos is not None else ()
        bare = self._backend.encode("a", add_special_tokens=False).ids
        full = self._backend.encode("a", add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return tuple(full[:start])
        return ()

    def encode_rendered(self, text: str) -> list[int]:
        """The same as transformers' `tokenizer(text, add_special_tokens=False)`."""
        return _ids(self._backend, text)

    def token_bytes(self, token_id: int) -> bytes:
        return self.byte_table[token_id] if 0 <= token_id < len(self.byte_table) else b""

    @property
    def leading_space(self) -> LeadingSpace:
        return self._decoding[1]

    @cached_property
    def byte_table(self) -> Sequence[bytes]:
        """The exact bytes of every id from 0 on; empty where an id has no token.

        Raises EngineError for an id that no model has a row for.
        """
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        largest = max(vocabulary.values(), default=-1)
        if largest > _LARGEST_ID:
            raise EngineError(f"the tokenizer has a token with the id {largest}; no model has one")
        table = [b""] * (largest + 1)
        to_bytes, _ = self._decoding
        for token, number in vocabulary.items():
            table[number] = to_bytes(token)
        for number, added in self._backend.get_added_tokens_decoder().items():
            table[number] = added.content.encode()  # written as it reads, in every vocabulary
        return tuple(table)

    @cached_property
    def _decoding(self) -> tuple[Callable[[str], bytes], LeadingSpace]:
        decoder = self._backend.decoder
        state = json.loads(decoder.__getstate__()) if decoder is not None else None
        return token_decoding(state)

    @cached_property
    def _plain(self) -> Mapping[Where, Tokenizer]:
        return plain_tokenizers(self._backend)

    def token_id(self, text: str) -> int | None:
        found: int | None = self._backend.token_to_id(text)
        return found

    def _encode(self, where: Where, text: str) -> list[int]:
        return _ids(self._plain[where], text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # A lone surrogate has no UTF-8 and could not be encoded at all.
    clean = text.encode("utf-8", "replace").decode()
    ids: list[int] = tokenizer.encode(clean, add_special_tokens=False).ids
    return ids


def _read_backend(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for every broken file
        raise EngineError(
            f"{file} cannot be read: {first_line(error)}; fetch the model anew"
        ) from None


def _read_with_transformers(folder: Path) -> Any:
    """Let transformers build a tokenizer out of vocab.json and merges.txt, tokenizer.model, ..."""
    from transformers import AutoTokenizer

    try:
        wrapper = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # anything may come out of files from elsewhere
        raise EngineError(
            f"{folder} has no tokenizer that can be read ({first_line(error)[:120]}); take a copy"
            " of the model with a tokenizer.json, or a .gguf of it"
        ) from None
    if not hasattr(wrapper, "backend_tokenizer"):
        raise EngineError(f"{folder} has a tokenizer of its own code; a tokenizer.json is needed")
    return wrapper


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The model's own chat template: a file of its own, or in the configuration."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"{file} cannot be read: {first_line(error)}") from None
    template = config.get("chat_template")
    template = template or _read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several by name: [{"name": "default", "template": "..."}]
        template = {
            item.get("name"): item.get("template") for item in template if isinstance(item, dict)
        }
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    return template if isinstance(template, str) and template else None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Names to tokens; a token is its text, or an object that holds it."""
    found = {}
    for name in (f"{kind}_token" for kind in _SPECIAL):
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{file} cannot be read: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise EngineError(f"{file} cannot be read: it holds no JSON object")
    return value
