"""A model's tokenizer: text to ids, ids to exact bytes, and which ids only a format may write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from functools import cached_property

from chatapp.chat.errors import EngineError
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.text import escape_bytes
from chatapp.engine.prompt.control import ControlPattern, ControlToken

Segment = str | ControlToken | tuple[int, ...]
"""Part of a prompt: ordinary text, one control token, or exact ids."""


class Where(Enum):
    """Where in a prompt a text stands; some vocabularies put a space before it in some places."""

    START = auto()
    AFTER_CONTROL = auto()
    INSIDE = auto()
    """It goes on after other text or a reply's exact ids: no space is put before it."""


class LeadingSpace(Enum):
    """What the decoder does to a space at the very start of a text."""

    KEEP = "keep"
    DROP_ONE = "drop one"
    DROP_OF_FIRST_TOKEN = "drop all of the first token"


class ModelTokenizer(ABC):
    """The tokenizer of one model. Only reads, so that threads may share it."""

    def __init__(
        self,
        *,
        controls: Sequence[ControlToken],
        special_tokens: Mapping[str, str],
        chat_template: str | None,
    ) -> None:
        """Keep what every kind of tokenizer has.

        `special_tokens`: the special tokens by their names in chat templates (bos_token, ...).
        `chat_template`: the model's own chat template, a Jinja source.
        """
        self.special_tokens: Mapping[str, str] = dict(special_tokens)
        self.chat_template = chat_template
        self.controls = tuple(controls)
        self.control_ids = frozenset(token.id for token in controls)
        self.special_ids = frozenset(token.id for token in controls if token.special)
        self.pattern = ControlPattern(controls)
        self._by_content = {token.content: token for token in controls}
        self._pieces: dict[int, TokenPiece] = {}

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest id with a token; the model may have more rows than that."""

    @property
    @abstractmethod
    def prefix_ids(self) -> tuple[int, ...]:
        """What the model expects before any text: its BOS token, or nothing."""

    @property
    @abstractmethod
    def leading_space(self) -> LeadingSpace:
        """What decoding does to a space at the start of a text."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one token; empty for an id without a token."""

    @abstractmethod
    def token_id(self, text: str) -> int | None:
        """The id of a special token's text."""

    @abstractmethod
    def encode_rendered(self, text: str) -> list[int]:
        """Ids of text that a format wrote: what spells a control token becomes it."""

    @abstractmethod
    def _encode(self, where: Where, text: str) -> list[int]:
        """Ids of ordinary text, in which nothing becomes a control token."""

    @property
    def prefixes_every_prompt(self) -> bool:
        """Whether `prefix_ids` belong before a prompt that the model's own template wrote, too."""
        return False

    @property
    def eos_id(self) -> int | None:
        return self._special_id("eos_token")

    def control_id(self, text: str) -> int | None:
        """The id of the control token that this text is, the whole of it; else None."""
        token = self._by_content.get(text)
        return token.id if token else None

    def encode_text(self, text: str) -> list[int]:
        """Ids of ordinary text. No control token is among them, whatever the text spells.

        Only a character the vocabulary lacks becomes its unknown token.
        """
        return self._encode(Where.START, text)

    def encode_inside(self, text: str) -> list[int]:
        """Ids of ordinary text that goes on in a reply: as `encode_text`, just as it is typed.

        No space is put before it, as some vocabularies do with a text that stands by itself.
        """
        return self._encode(Where.INSIDE, text)

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """Ids of a prompt in parts: texts never become control tokens, ids stay as they are."""
        ids: list[int] = []
        where = Where.START
        for segment in segments:
            match segment:
                case str():
                    if segment:
                        ids += self._encode(where, segment)
                        where = Where.INSIDE
                case ControlToken():
                    ids.append(segment.id)
                    where = Where.AFTER_CONTROL
                case _:
                    ids += segment
                    where = Where.INSIDE
        return ids

    def controls_in(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The control tokens among ids, but for the one that stands for unknown characters."""
        unknown = self._special_id("unk_token")
        return tuple(i for i in ids if i in self.control_ids and i != unknown)

    def piece(self, token_id: int) -> TokenPiece:
        if (known := self._pieces.get(token_id)) is None:
            data = self.token_bytes(token_id)
            known = TokenPiece(token_id, escape_bytes(data), data, token_id in self.control_ids)
            self._pieces[token_id] = known
        return known

    def pieces(self, ids: Iterable[int]) -> tuple[TokenPiece, ...]:
        return tuple(map(self.piece, ids))

    @cached_property
    def byte_table(self) -> Sequence[bytes]:
        """The exact bytes of every id from 0 on; empty where an id has no token."""
        return tuple(map(self.token_bytes, range(self.vocab_size)))

    def least_tokens(self, length: int) -> int:
        """How many tokens a text of so many bytes has at the very least; 0 where that isn't known.

        Normalizing may shorten a text, but to no less than a quarter; and one token may stand for
        any length of unknown text, where no byte is a token.
        """
        return length // (4 * self._longest) if self._longest else 0

    @cached_property
    def _longest(self) -> int:
        text = [data for id_, data in enumerate(self.byte_table) if id_ not in self.control_ids]
        has_bytes = any(len(data) == 1 and data >= b"\x80" for data in text)
        return max(map(len, text)) if has_bytes else 0

    def _special_id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return self.token_id(text) if text else None


_PROBE = "The cat: 09, é 漢 🙂"
"""Letters, digits, marks and characters of one to four bytes."""


def check_tokenizer(tokenizer: ModelTokenizer, where: str) -> None:
    """Encode a short text, and hold what comes out against it.

    Raises EngineError: everything becomes one and the same token that doesn't say it.
    """
    if tokenizer.vocab_size < 2:  # asked first: it tells of an id that no model has
        raise EngineError(f"the tokenizer of {where} has no vocabulary; fetch it again")
    ids = tokenizer.encode_text(_PROBE)
    said = b"".join(map(tokenizer.token_bytes, ids))
    if len(set(ids)) <= 1 and _PROBE.encode() not in said:
        raise EngineError(
            f"the tokenizer of {where} makes the same of every text; it is damaged: fetch it again"
        )
