"""Progress of work that transformers does in one call: its bars, turned into values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

from chatapp.chat.facts import Progress, Report


class ProgressBar(logging.EmptyTqdm):
    """Stands in for a tqdm bar: what it is told goes to a callback instead of the terminal."""

    def __init__(self, items: Iterable[Any], total: int, stage: str, on_progress: Report) -> None:
        self._items = items
        self._total = total
        self._stage = stage
        self._on_progress = on_progress
        self._done = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        self._done += count
        self._on_progress(Progress(self._stage, self._done, self._total, "tensors"))


@contextmanager
def report_weights(on_progress: Report) -> Iterator[None]:
    """While it lasts, transformers' "Loading weights" bars go to the callback."""

    def hook(_factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProgressBar:
        items = args[0] if args else kwargs.get("iterable")
        total = kwargs.get("total") or (len(items) if isinstance(items, Sized) else 0)
        return ProgressBar(items or (), total, "loading weights", on_progress)

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
