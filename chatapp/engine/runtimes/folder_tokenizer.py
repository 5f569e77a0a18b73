"""The tokenizer in a model's folder: tokenizer.json, or what transformers makes of older files.

Read with the `tokenizers` library alone, since building transformers' wrapper around the same file
takes twenty times as long; transformers is asked only for folders without a tokenizer.json.

A vocabulary stores its tokens in one of several disguises: byte-level BPE writes each byte as a
printable character, SentencePiece writes spaces as "▁" and single bytes as "<0x0A>", WordPiece
marks what continues a word. The decoder in tokenizer.json says which; `token_decoding` undoes it.

In the real tokenizer any text that spells a control token becomes it
(huggingface/transformers#29279). So a second tokenizer is built from the same JSON in which each
control token has a name that nobody can type; everything else, ids included, is as it was.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from chatapp.chat.errors import EngineError, first_line
from chatapp.engine.prompt.control import ControlToken
from chatapp.engine.runtimes.tokenizer import LeadingSpace, ModelTokenizer, Where

Json = dict[str, Any]
"""A part of tokenizer.json."""

_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Chat templates know special tokens as bos_token, …"""

_LARGEST_ID = 10_000_000
"""No vocabulary comes near; a table of all ids is made."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


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
            controls=tuple(
                ControlToken(id_, one.content, one.special, one.lstrip, one.rstrip, one.single_word)
                for id_, one in sorted(backend.get_added_tokens_decoder().items())
                if one.content and (one.special or one.content.strip())
            ),
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
            backend, special = _read_backend(folder / "tokenizer.json"), _special_tokens(names)
        else:
            wrapper = _read_with_transformers(folder)
            backend = wrapper.backend_tokenizer
            special = {k: str(v) for k, v in wrapper.special_tokens_map.items()}
        return cls(backend, special_tokens=special, chat_template=template, add_bos=add_bos)

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
        return plain_tokenizers(self._backend, self.controls)

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


# What the tokens of a vocabulary are in bytes.


def token_decoding(decoder: Json | None) -> tuple[Callable[[str], bytes], LeadingSpace]:
    """How a vocabulary's entries, but for added tokens, become bytes, by tokenizer.json's decoder.

    Exact for byte-level BPE and for SentencePiece's models. For WordPiece, word-level vocabularies
    and BPE with an end-of-word mark the space between two words belongs to neither token; it is
    given to the second (to the first for the end-of-word mark).
    """
    steps = list(_steps(decoder))
    kinds = {step["type"]: step for step in steps}
    if "ByteLevel" in kinds:
        return (_byte_level, LeadingSpace.KEEP)
    if "Metaspace" in kinds:
        step = kinds["Metaspace"]
        leading = (
            LeadingSpace.KEEP
            if step.get("prepend_scheme", "always") == "never"
            else LeadingSpace.DROP_OF_FIRST_TOKEN
        )
        return (_spaced(step.get("replacement", "▁"), " "), leading)
    if "ByteFallback" in kinds or "Replace" in kinds:
        strips = any(s["type"] == "Strip" and s["content"] == " " and s["start"] for s in steps)
        replace = kinds.get("Replace", {})
        mark = replace.get("pattern", {}).get("String", "▁")
        leading = LeadingSpace.DROP_ONE if strips else LeadingSpace.KEEP
        return (_spaced(mark, replace.get("content", " ")), leading)
    if "BPEDecoder" in kinds:
        suffix = kinds["BPEDecoder"].get("suffix", "</w>")
        return (lambda t: t.replace(suffix, " ").encode(), LeadingSpace.KEEP)
    prefix = kinds.get("WordPiece", {}).get("prefix")
    return (_words(prefix), LeadingSpace.DROP_ONE)


def _steps(decoder: Json | None) -> Iterator[Json]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _steps(inner)
    else:
        yield decoder


def _spaced(mark: str, space: str) -> Callable[[str], bytes]:
    """SentencePiece: a mark for the space, and bytes that have no character by number."""

    def to_bytes(token: str) -> bytes:
        if match := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(match.group(1), 16)])
        return token.replace(mark, space).encode()

    return to_bytes


def _words(prefix: str | None) -> Callable[[str], bytes]:
    """Whole words: a space before each, but for those that continue a word."""

    def to_bytes(token: str) -> bytes:
        if prefix and token.startswith(prefix):
            return token[len(prefix) :].encode()
        return f" {token}".encode()

    return to_bytes


def _byte_alphabet() -> dict[str, int]:
    """Which byte each character stands for in byte-level BPE (GPT-2's bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


_BYTE_OF = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    """The bytes of a byte-level BPE token; text outside of its alphabet stands for itself."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode("utf-8", "surrogatepass")


# Tokenizers in which no text becomes a control token.


def plain_tokenizers(
    tokenizer: Tokenizer, controls: tuple[ControlToken, ...]
) -> Mapping[Where, Tokenizer]:
    """Tokenizers without control tokens, made of the real one; at most two are different ones.

    SentencePiece-like tokenizers put a space before a text. Some do it once, at the start, others
    after every control token too; none may do it where a text merely goes on.
    """
    plain = _without_control_tokens(json.loads(tokenizer.to_str()), controls)
    at_start = Tokenizer.from_str(json.dumps(plain))
    once = _prefixes_once(plain.get("pre_tokenizer"))
    bare = {
        **plain,
        "pre_tokenizer": _without_prefix(plain.get("pre_tokenizer")),
        "normalizer": _without_prefix(plain.get("normalizer")),
    }
    if bare == plain:
        return dict.fromkeys(Where, at_start)
    inside = Tokenizer.from_str(json.dumps(bare))
    after_control = inside if once else at_start
    return {Where.START: at_start, Where.AFTER_CONTROL: after_control, Where.INSIDE: inside}


def _without_control_tokens(tokenizer: Json, tokens: tuple[ControlToken, ...]) -> Json:
    """The JSON with every control token under a name that no text can spell.

    They are renamed and not removed, since the ids of added tokens follow from their order.
    """
    secret = secrets.token_hex(16)
    names = {token.content: f"\ufdd0{secret}{token.id}" for token in tokens}
    added = [
        {**item, "content": names.get(item["content"], item["content"])}
        for item in tokenizer["added_tokens"]
    ]
    return {
        **tokenizer,
        "added_tokens": added,
        "model": _renamed_model(tokenizer["model"], names),
        "post_processor": None,
        "padding": None,
        "truncation": None,
    }


def _renamed_model(model: Json, names: Mapping[str, str]) -> Json:
    """The model with those entries of its vocabulary renamed, and no merge that leads to one."""
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: pairs of piece and score
        return {**model, "vocab": [[names.get(piece, piece), score] for piece, score in vocab]}
    if names.keys().isdisjoint(vocab):
        return model
    renamed = {**model, "vocab": {names.get(entry, entry): id_ for entry, id_ in vocab.items()}}
    if unknown := model.get("unk_token"):
        renamed["unk_token"] = names.get(unknown, unknown)
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        renamed["merges"] = [
            merge for merge in model["merges"] if not _merge_parts(merge, prefix) & names.keys()
        ]
    return renamed


def _merge_parts(merge: str | list[str], prefix: str) -> set[str]:
    """The two tokens of a merge, and what they make."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return {first, second, first + second.removeprefix(prefix)}


def _prefixes_once(step: Json | None) -> bool:
    """Whether the space before a text is put at the start of the whole text only."""
    if step is None:
        return False
    if step["type"] == "Sequence":
        return any(map(_prefixes_once, step["pretokenizers"]))
    return bool(step["type"] == "Metaspace" and step.get("prepend_scheme") == "first")


def _without_prefix(step: Json | None) -> Json | None:
    """A normalizer or pre-tokenizer that puts nothing before the text."""
    if step is None or step["type"] == "Prepend":
        return None
    for key in ("pretokenizers", "normalizers"):
        if key in step:
            kept = [inner for inner in map(_without_prefix, step[key]) if inner is not None]
            return {**step, key: kept}
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if step["type"] == "ByteLevel":
        return {**step, "add_prefix_space": False}
    return step
