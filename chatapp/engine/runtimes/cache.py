"""The KV cache with the ids it holds, and beside it what the layers made of each of them.

Between turns most of a prompt is what the cache has read already. `reuse` keeps the longest common
prefix of ids and crops the rest away. Where a cache can't be cropped (full sliding windows, the
recurrent state of a state-space model) it starts anew, which is slower and just as right.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from chatapp.engine.runtimes.head import Capture
from chatapp.engine.runtimes.loader import LoadedModel
from chatapp.engine.runtimes.states import FinalStates


class PrefixCache:
    """One model's KV cache and the token ids whose keys and values are in it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._cache: Any = None
        self.ids: list[int] = []
        self._states = FinalStates()

    def reuse(self, ids: Sequence[int]) -> int:
        """Make the cache hold a prefix of `ids`, the longest it can.

        At least one id is left to read, since the logits come from reading.

        Returns:
            How many of the ids the cache holds now.
        """
        keep = min(common_prefix(self.ids, ids), len(ids) - 1)
        if keep <= 0 or not self._crop(keep):
            self.clear()
        return len(self.ids)

    def clear(self) -> None:
        """Forget everything."""
        self._cache = None
        self.ids = []
        self._states.clear()

    def copy(self) -> Any:
        """A copy of transformers' cache object, for others to change; None when it is empty."""
        return copy.deepcopy(self._cache)

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """Run the model over further ids; they join the cache.

        Returns:
            The logits after the last of them, (V,) float32, on the model's device.
        """
        tokens = torch.tensor([list(ids)], device=self._loaded.input_device)
        arguments = {self._loaded.cache_argument: self._cache} if self._cache is not None else {}
        try:
            with self._capture() as taken:
                output = self._loaded.model(tokens, use_cache=True, logits_to_keep=1, **arguments)
        except BaseException:
            self.clear()  # half of the layers may have taken the ids, the others not
            raise
        self._cache = getattr(output, self._loaded.cache_argument)
        if taken is not None:
            self._states.append(taken.states, len(self.ids))
        self.ids.extend(ids)
        logits: torch.Tensor = output.logits[0, -1]
        return logits.float()

    def states_of(self, ids: Sequence[int]) -> FinalStates | None:
        """The final hidden states of a text that the cache holds, and maybe more.

        Args:
            ids: the text; what the model makes of its last token is not asked for.

        Returns:
            None where the cache holds another text, or the states of a part of it alone.
        """
        needed = len(ids) - 1
        known = len(self._states) >= needed and common_prefix(self.ids, ids) >= needed
        return self._states if known else None

    @property
    def chunkable(self) -> bool:
        """Whether a prompt may be read in several pieces."""
        return not self._loaded.recurrent

    @property
    def bytes_used(self) -> int:
        """Memory the keys and values take, and the final states beside them."""
        layers = self._cache.layers if self._cache is not None else []
        held = (getattr(layer, name, None) for layer in layers for name in ("keys", "values"))
        cached = sum(t.numel() * t.element_size() for t in held if isinstance(t, torch.Tensor))
        return cached + self._states.bytes_used

    def _capture(self) -> AbstractContextManager[Capture | None]:
        head = self._loaded.head
        return head.capture() if head is not None else nullcontext()

    def _crop(self, keep: int) -> bool:
        if self._loaded.recurrent:
            return False  # it cannot be put back, and several ids at once would begin it anew
        surplus = len(self.ids) - keep
        if surplus and not self._croppable():
            return False
        if surplus:
            self._cache.crop(-surplus)
            del self.ids[keep:]
            self._states.crop(keep)
        return True

    def _croppable(self) -> bool:
        """Whether every layer can be put back; asked first, since a failed crop ruins the cache."""
        for layer in self._cache.layers:
            if not getattr(layer, "is_croppable", False):
                return False
            full = getattr(layer, "is_sliding", False) and (
                layer.get_seq_length() >= layer.sliding_window
            )
            if full:
                return False
        return True


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count
