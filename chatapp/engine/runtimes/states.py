"""The final hidden states of the tokens that a KV cache holds, kept beside it.

They make scoring a prompt cheap (see `runtimes.head`). One token takes d numbers, a small
part of its keys and values; `STATES_BYTES` bounds them all the same. Past the bound no more are
kept, and what stands there has to be read again to be scored.
"""

from __future__ import annotations

import torch

STATES_BYTES = 128 << 20
"""Memory for the states: 58,000 tokens of a width of 576, 8,000 of 4,096, in float32."""

_FIRST_ROWS = 256
"""How many tokens there is room for at first; the room doubles when it is used up."""


class FinalStates:
    """Rows that grow at the end and can be cropped: (n, d), in the model's dtype, on its device."""

    def __init__(self, most_bytes: int = STATES_BYTES) -> None:
        """Hold nothing yet."""
        self._most_bytes = most_bytes
        self._buffer: torch.Tensor | None = None
        self._length = 0

    def __len__(self) -> int:
        """How many tokens' states are kept, from the first one on."""
        return self._length

    def __getitem__(self, rows: list[int]) -> torch.Tensor:
        """The states of some tokens, by their places: (n, d), a copy."""
        assert self._buffer is not None
        with torch.inference_mode():
            return self._buffer[rows]

    @property
    def bytes_used(self) -> int:
        """Memory they take."""
        buffer = self._buffer
        return buffer.numel() * buffer.element_size() if buffer is not None else 0

    def append(self, states: torch.Tensor, place: int) -> None:
        """Keep the states of further tokens, as far as there is room.

        Args:
            states: (k, d).
            place: where the first of them stands; past the end they are left out, since the ones
                between are missing.
        """
        if place != self._length:
            return
        row_bytes = max(1, states.shape[1] * states.element_size())
        kept = min(states.shape[0], self._most_bytes // row_bytes - self._length)
        if kept <= 0:
            return
        with torch.inference_mode():
            buffer = self._with_room(states, self._length + kept)
            buffer[self._length : self._length + kept] = states[:kept]
        self._buffer = buffer
        self._length += kept

    def crop(self, length: int) -> None:
        """Forget what stands behind the first tokens."""
        self._length = min(self._length, length)

    def clear(self) -> None:
        """Forget everything, and give the memory back."""
        self._buffer = None
        self._length = 0

    def _with_room(self, like: torch.Tensor, rows: int) -> torch.Tensor:
        """The buffer, or a larger one with the same states in it."""
        old = self._buffer
        if old is not None and old.shape[0] >= rows:
            return old
        width = like.shape[1]
        most = self._most_bytes // max(1, width * like.element_size())
        wanted = max(rows, _FIRST_ROWS, 2 * (0 if old is None else old.shape[0]))
        buffer = like.new_empty((min(wanted, most), width))
        if old is not None:
            buffer[: self._length] = old[: self._length]
        return buffer
