"""Keys and values of long texts on the disk, so that a chat resumed another day need not be read.

Off unless the settings give it room. A file holds one text's ids and llama.cpp's own state of it,
and belongs to one model's file, one build of the library and one version of this layout; whatever
else is found is passed over. The files used least lately go where the room is short.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chatapp.engine.runtimes.base import common_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatapp.engine.runtimes.llama_cpp import LlamaCppSequence

LEAST_TOKENS = 256
"""Shorter texts are read in no time."""

_LAYOUT = 1


class KeptStates:
    """A bounded folder of texts that one model has read."""

    def __init__(self, folder: Path, model: str, library: str, most_bytes: int) -> None:
        """`model`: the SHA-256 of its file. `library`: which build reads the states."""
        self._folder = folder
        self._head = {"layout": _LAYOUT, "model": model, "library": library}
        self._most = most_bytes
        self._last: tuple[list[int], Path] | None = None

    def save(self, sequence: LlamaCppSequence) -> None:
        """Keep what a sequence holds, where that is much more than what was kept of it before.

        What cannot be written is not kept.
        """
        before = self._last
        known = common_prefix(before[0], sequence.ids) if before is not None else 0
        if len(sequence.ids) - known < LEAST_TOKENS:
            return
        ids = np.array(sequence.ids, np.uint32).tobytes()
        name = hashlib.sha256(json.dumps(self._head).encode() + ids).hexdigest()
        state = sequence.state()
        head = json.dumps(self._head | {"tokens": len(sequence.ids), "crc": zlib.crc32(state)})
        if not state or len(state) > self._most:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                try:
                    file.write(head.encode() + b"\n" + ids + state)
                    os.replace(file.name, self._folder / f"{name}.kv")
                except BaseException:
                    os.unlink(file.name)
                    raise
            if before is not None and known == len(before[0]):
                before[1].unlink(missing_ok=True)  # the beginning of what is kept now
            self._last = list(sequence.ids), self._folder / f"{name}.kv"
            self._make_room()

    def restore(self, sequence: LlamaCppSequence, ids: Sequence[int]) -> None:
        """Have a sequence hold the kept text that begins most like these ids, if it is worth it."""
        best, longest = None, common_prefix(sequence.ids, ids) + LEAST_TOKENS
        for path in self._files():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with path.open("rb") as file:
                    head = json.loads(file.readline(1000))
                    kept = np.frombuffer(file.read(4 * head["tokens"]), np.uint32).tolist()
                same = common_prefix(kept, ids)
                if all(head[name] == value for name, value in self._head.items()) and (
                    same >= longest
                ):
                    best, longest = path, same + 1
        if best is None:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with best.open("rb") as file:
                head = json.loads(file.readline(1000))
                kept = np.frombuffer(file.read(4 * head["tokens"]), np.uint32).tolist()
                state = file.read()
            if zlib.crc32(state) == head["crc"] and sequence.restore(kept, state):
                os.utime(best)
                self._last = kept, best
                return
            best.unlink()

    def _files(self) -> list[Path]:
        """The kept files, those used last first."""
        with contextlib.suppress(OSError):
            return sorted(
                self._folder.glob("*.kv"), key=lambda path: path.stat().st_mtime, reverse=True
            )
        return []

    def _make_room(self) -> None:
        total = 0
        for path in self._files():
            total += path.stat().st_size
            if total > self._most:
                path.unlink()
