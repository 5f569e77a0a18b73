"""The tokenizer in a GGUF file, as llama.cpp itself reads it, whichever runtime runs the model.

The file names its pre-tokenizer (`tokenizer.ggml.pre`) and llama.cpp's code says what the name
means: what it gives is right by definition. Converters to other formats know few of the names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from chatapp.chat.errors import EngineError
from chatapp.engine.prompt.control import ControlToken
from chatapp.engine.runtimes.library import Library, library
from chatapp.engine.runtimes.tokenizer import LeadingSpace, ModelTokenizer, Where

_UNKNOWN, _CONTROL, _USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
_LSTRIP, _RSTRIP, _SINGLE_WORD = 1 << 7, 1 << 8, 1 << 9
"""Attributes of tokens: llama.h, `llama_token_attr`."""

_NAMED = ("bos", "eos", "sep", "pad", "mask")

_BARRIER = "\n"
"""What no vocabulary that puts a space before a text merges with the letters behind it."""


class GgufTokenizer(ModelTokenizer):
    """llama.cpp's tokenizer. The model whose vocabulary it is must outlive it."""

    def __init__(self, lib: Library, model: Any) -> None:
        """Read the vocabulary of a loaded model (a `llama_model *`)."""
        self._lib, self._model = lib, model
        self._vocab = lib.c.llama_model_get_vocab(model)
        self._size: int = lib.c.llama_vocab_n_tokens(self._vocab)
        self._bytes: dict[int, bytes] = {}
        attributes = list(map(lib.c.llama_vocab_get_attr, *self._all()))
        controls = tuple(self._controls(attributes))
        template = lib.c.llama_model_chat_template(model, lib.ffi.NULL)
        super().__init__(
            controls=controls,
            special_tokens=self._special_tokens(attributes),
            chat_template=lib.ffi.string(template).decode("utf-8", "replace") if template else None,
        )
        spelt = (token.content for token in controls if not token.special)
        self._user_defined = re.compile("|".join(map(re.escape, spelt)) or "(?!)")

    @property
    def vocab_size(self) -> int:
        return self._size

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Every token that ends a reply: the file's eos and eot, and what llama.cpp knows as such.

        Ascending.
        """
        ends = map(self._lib.c.llama_vocab_is_eog, *self._all())
        return tuple(token_id for token_id, end in enumerate(ends) if end)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        bos = self._lib.c.llama_vocab_bos(self._vocab)
        return (bos,) if self._lib.c.llama_vocab_get_add_bos(self._vocab) and bos >= 0 else ()

    @property
    def prefixes_every_prompt(self) -> bool:
        return True

    @cached_property
    def leading_space(self) -> LeadingSpace:
        """What decoding does to a space at the start of a text: it drops the one it put there."""
        return LeadingSpace.DROP_ONE if self._puts_space else LeadingSpace.KEEP

    def token_id(self, text: str) -> int | None:
        return self._ids_by_text.get(text)

    def token_bytes(self, token_id: int) -> bytes:
        if (known := self._bytes.get(token_id)) is None:
            known = self._read_bytes(token_id) if 0 <= token_id < self._size else b""
            self._bytes[token_id] = known
        return known

    def encode_rendered(self, text: str) -> list[int]:
        return self._tokenize(text, special=True)

    def _encode(self, where: Where, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._apart(text):
            ids += self._inside(piece) if where is Where.INSIDE else self._tokenize(piece)
            where = Where.INSIDE
        return ids

    def _apart(self, text: str) -> Iterator[str]:
        """The text cut within everything that spells a token of the user-defined kind.

        llama.cpp makes such tokens (<think>) of any text that spells them.
        """
        start = at = 0
        while found := self._user_defined.search(text, at):
            at = found.start() + 1
            yield text[start:at]
            start = at
        yield text[start:]

    def _inside(self, text: str) -> list[int]:
        """Ids of a text before which no space is put."""
        if not self._puts_space:
            return self._tokenize(text)
        before = self._tokenize(_BARRIER)
        return self._tokenize(_BARRIER + text)[len(before) :]

    @cached_property
    def _puts_space(self) -> bool:
        """Whether a space is put before a text that stands by itself."""
        ids = self._tokenize("a")
        return bool(ids) and b"".join(map(self.token_bytes, ids)) == b" a"

    def _tokenize(self, text: str, *, special: bool = False) -> list[int]:
        if not text:
            return []
        data = text.encode("utf-8", "replace")  # a lone surrogate has no UTF-8
        room = len(data) + 8
        ids = self._lib.ffi.new("int32_t[]", room)
        count = self._lib.c.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        if count < 0:
            raise EngineError("the text is too long to be tokenized in one piece; shorten it")
        return self._lib.ffi.unpack(ids, count) if count else []

    def _read_bytes(self, token_id: int) -> bytes:
        room = 64
        while True:
            buffer = self._lib.ffi.new("char[]", room)
            count: int = self._lib.c.llama_token_to_piece(
                self._vocab, token_id, buffer, room, 0, True
            )
            if count >= 0:
                return bytes(self._lib.ffi.buffer(buffer, count))
            room = -count

    def _controls(self, attributes: list[int]) -> Iterator[ControlToken]:
        """Control and unknown tokens, and user-defined ones that aren't mere whitespace.

        A user-defined token of a single character is how that character is written, no more.
        """
        for token_id, attribute in enumerate(attributes):
            if not attribute & (_CONTROL | _UNKNOWN | _USER_DEFINED):
                continue
            content = self.token_bytes(token_id).decode("utf-8", "replace")
            special = not attribute & _USER_DEFINED
            if content and (special or (content.strip() and len(content) > 1)):
                yield ControlToken(
                    token_id,
                    content,
                    special,
                    lstrip=bool(attribute & _LSTRIP),
                    rstrip=bool(attribute & _RSTRIP),
                    single_word=bool(attribute & _SINGLE_WORD),
                )

    def _special_tokens(self, attributes: list[int]) -> dict[str, str]:
        unknown = next((i for i, kind in enumerate(attributes) if kind & _UNKNOWN), -1)
        ids: dict[str, int] = {"unk_token": unknown}
        for name in _NAMED:
            ids[f"{name}_token"] = getattr(self._lib.c, f"llama_vocab_{name}")(self._vocab)
        found = {name: token_id for name, token_id in ids.items() if token_id >= 0}
        texts = {name: self.token_bytes(i).decode("utf-8", "replace") for name, i in found.items()}
        self._ids_by_text = {texts[name]: token_id for name, token_id in found.items()}
        return texts

    def _all(self) -> tuple[list[Any], range]:
        """Arguments of a function for every token, for `map`."""
        return [self._vocab] * self._size, range(self._size)


def read_vocabulary(file: Path) -> GgufTokenizer:
    """The tokenizer of a GGUF file alone, without its weights.

    Raises NoLibrary: llama.cpp can't be used here. Raises EngineError: the file can't be read.
    """
    lib = library()
    params = lib.c.llama_model_default_params()
    params.vocab_only = True
    model = lib.c.llama_model_load_from_file(os.fsencode(file), params)
    if model == lib.ffi.NULL:
        raise EngineError(f"llama.cpp can't read the vocabulary of {file}: {lib.last_error()}")
    return GgufTokenizer(lib, lib.ffi.gc(model, lib.c.llama_model_free))
