"""What turns token ids into logits, whichever library does it.

Two implementations: `llama_cpp` for GGUF files, `transformers` for everything else. Sampling,
records, searches, scores and what-if know only what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import ModelFacts
from chatapp.engine.runtimes.tokenizer import ModelTokenizer
from chatapp.settings.machine import free_memory

Floats = npt.NDArray[np.float32]

Watch = Callable[[int], bool]
"""Told, several times a second while ids are read, how many of them are; False stops the reading.
It may be called from another thread, and while the library computes."""


class Stopped(EngineError):
    """The reading was stopped by whoever watches it. What was read whole stays read."""


class CannotFork(EngineError):
    """This model's state can't be copied, or not as it was at an earlier token."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the model made of the last ids that it read."""

    logits: Floats
    """For the token behind each, (n, V)."""
    states: Floats
    """The final hidden states of all ids read (behind the last norm), (m, d); m is 0 where they
    were not asked for."""


class KVSequence(Protocol):
    """A text that the model has read, and the keys and values that are kept of it."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens read."""

    def read(
        self, ids: Sequence[int], *, last: int = 1, watch: Watch | None = None, states: bool = False
    ) -> Reading:
        """Read further ids.

        `last`: for how many of them, from the end, the logits are wanted. Raises Stopped: `watch`
        said so. Raises EngineError: the model failed; the sequence is empty then.
        """

    def crop(self, length: int) -> None:
        """Forget what stands behind the first ids; all of it, where that can't be put back."""

    def fork(self, length: int) -> KVSequence:
        """Another sequence that has read the first `length` ids. Raises CannotFork."""

    def rows(self) -> Rows:
        """One row that has read what this has. Raises CannotFork."""

    def close(self) -> None:
        """Give its memory back."""


class Rows(Protocol):
    """Several continuations of one text, each as long as the others, read together.

    One pass over the weights serves all rows, and passing over the weights is what decoding waits
    for.
    """

    def select(self, rows: Sequence[int]) -> None:
        """Make row i what row rows[i] is now; a row may be named never, or several times."""

    def read(self, ids: Sequence[int], *, states: bool = False) -> Reading:
        """Read one further id for each row: logits (rows, V), states (rows, d)."""

    def close(self) -> None:
        """Give their memory back."""


class Runtime(Protocol):
    """A loaded model."""

    @property
    def tokenizer(self) -> ModelTokenizer:
        """Text to ids and back."""

    facts: ModelFacts
    """What is known of the model; the engine adds ends of turns that its format tells."""

    @property
    def reads_in_pieces(self) -> bool:
        """Whether a sequence that isn't empty can read several ids at once."""

    def sequence(self) -> KVSequence:
        """A new, empty sequence."""

    def close(self) -> None:
        """Give everything back; nothing of it may be used afterwards."""


def check_memory(
    needed: float, what: str, of: str, way_out: str, *, share: float = 1.0, more: int = 0
) -> None:
    """Refuse what cannot fit before the machine starts to swap. Raises EngineError.

    `share`: how much of the free memory may be taken. `more`: bytes that a GPU has free besides.
    """
    free = free_memory() + more
    if needed > share * free:
        raise EngineError(
            f"{what} {needed / 1e9:.1f} GB {of}, and {free / 1e9:.1f} GB are free; {way_out}"
        )


def reuse(sequence: KVSequence, ids: Sequence[int]) -> int:
    """Make a sequence hold the longest prefix of `ids` that it can, but not all of them.

    At least one id is left to read, since the logits come from reading. Returns how many of the ids
    it holds now.
    """
    keep = min(common_prefix(sequence.ids, ids), len(ids) - 1)
    sequence.crop(max(keep, 0))
    return len(sequence.ids)


def common_prefix(a: Iterable[int], b: Iterable[int]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def recommended(told: Mapping[str, Any]) -> str:
    """What the model's makers would have it drawn with, in words; empty where they don't say.

    Args:
        told: sampling parameters by name, as generation_config.json has them, and anything else.
    """
    values = [
        f"{name.replace('_', '-')} {value:g}"
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        if isinstance(value := told.get(name), int | float) and not isinstance(value, bool)
    ]
    return f"its makers recommend {', '.join(values)}; /set takes them" if values else ""
