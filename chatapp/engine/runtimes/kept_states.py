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
    """A bounded folder of texts that one model has read; of one sequence, which it fills."""

    def __init__(
        self, sequence: LlamaCppSequence, folder: Path, model: str, library: str, most_bytes: int
    ) -> None:
        """`model`: the SHA-256 of its file. `library`: which build reads the states."""
        self._sequence = sequence
        self._folder = folder
        self._head = {"layout": _LAYOUT, "model": model, "library": library}
        self._most = most_bytes
        self._last: tuple[list[int], Path] | None = None

    def save(self) -> None:
        """Keep what the sequence holds, where that is much more than what was kept of it before.

        What cannot be written is not kept.
        """
        before, held = self._last, list(self._sequence.ids)
        known = common_prefix(before[0], held) if before is not None else 0
        if len(held) - known < LEAST_TOKENS:
            return
        ids = np.array(held, np.uint32).tobytes()
        name = hashlib.sha256(json.dumps(self._head).encode() + ids).hexdigest()
        state = self._sequence.state()
        head = json.dumps(self._head | {"tokens": len(held), "crc": zlib.crc32(state)})
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
            self._last = held, self._folder / f"{name}.kv"
            self._make_room()

    def restore(self, ids: Sequence[int]) -> None:
        """Have the sequence hold the kept text that begins most like these ids, if it is worth it.

        A file that turns out to be damaged goes.
        """
        best, longest = None, common_prefix(self._sequence.ids, ids) + LEAST_TOKENS
        for path in self._files() if longest <= len(ids) else ():
            if found := self._read(path):
                same = common_prefix(found[0], ids)
                if same >= longest:
                    best, longest = path, same + 1
        if best is None:
            return
        found = self._read(best, whole=True)
        with contextlib.suppress(OSError):
            if found and self._sequence.restore(*found):
                self._last = found[0], best
                os.utime(best)
            else:
                best.unlink()

    def _read(self, path: Path, *, whole: bool = False) -> tuple[list[int], bytes] | None:
        """A file's ids, and its state where `whole`; None where it is damaged or another's."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), path.open("rb") as file:
            head = json.loads(file.readline(1000))
            ids = np.frombuffer(file.read(4 * head["tokens"]), np.uint32).tolist()
            state = file.read() if whole else b""
            if self._head.items() <= head.items() and (
                not whole or zlib.crc32(state) == head["crc"]
            ):
                return ids, state
        return None

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
