"""Whether a model fits this machine, and about how fast it can be, before anything is fetched.

The memory is that of the weights and of the KV cache of a full context. Writing a token reads all
weights once, so that a machine's memory bandwidth is the limit of its speed; where the processor is
the slower part, as with the smallest models, it is slower than that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from chatapp.chat.numbers import count, size
from chatapp.models.catalog import CatalogEntry
from chatapp.models.facts import FileFacts
from chatapp.settings.machine import free_memory, memory_speed

USUAL_CONTEXT = 4096
"""Tokens that memory is told for where the user asks for no other number."""

_BITS = {"Q4_1": 5.0, "Q4_K_M": 4.9, "BF16": 16.0}
"""Bits a weight takes, of the catalog's formats: what a file of an unknown size may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine has for models."""

    free: int
    """Bytes of memory that programs may still take."""
    bandwidth: float
    """Bytes a second that all cores together read from memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a model would take here; 0 where it is not known."""

    size: int
    """Bytes of its file or files; an estimate where `estimated`."""
    memory: int
    """Bytes of its weights as they are loaded, and of its KV cache."""
    context: int
    """For so many tokens."""
    fits: bool
    most_per_second: float
    """Tokens a second that the memory bandwidth allows."""
    estimated: bool = False

    @property
    def words(self) -> str:
        """For a list: "~1.1 GB · takes 1.3 GB at 4 096 tokens · at most 12 tok/s"."""
        if not self.memory:
            return size(self.size) if self.size else ""
        takes = f"takes {size(self.memory)} at {count(self.context)} tokens"
        speed = f"at most {self.most_per_second:.0f} tok/s" if self.fits else "more than is free"
        return f"{'~' * self.estimated}{size(self.size)} · {takes} · {speed}"


def machine() -> Machine:
    """Look at this machine."""
    return Machine(free=free_memory(), bandwidth=memory_speed(os.cpu_count() or 1))


def fit(
    model: FileFacts | CatalogEntry, kind: Literal["folder", "gguf"],
    on: Machine, context: int = 0,
) -> Fit:  # fmt: skip
    """What a model would take on a machine.

    `context`: for so many tokens; 0 is USUAL_CONTEXT, or the model's own where that is less.
    """
    known = model.size
    length = context or USUAL_CONTEXT
    if not isinstance(model, CatalogEntry) and model.context_length:
        length = min(length, model.context_length)
    stored = known or round(model.parameters * _BITS.get(model.weight_format or "BF16", 0) / 8)
    # A folder runs in float32 on a processor; llama.cpp keeps weights as stored, keys in float16.
    weights = max(stored, 4 * model.parameters) if kind == "folder" else stored
    cache = length * model.kv_values * (4 if kind == "folder" else 2)
    memory = weights + cache if weights else 0  # of a file of the Hub, without the unknown cache
    return Fit(
        size=stored,
        memory=memory,
        context=length,
        fits=memory <= on.free,
        most_per_second=on.bandwidth / weights if weights else 0.0,
        estimated=not known,
    )
