"""Facts about a loaded model, as the header and `chatapp models info` show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files are on this machine."""

    name: str
    """What the screen calls it."""
    path: str
    kind: Literal["folder", "gguf"]
    sha256: str = ""
    """The file's hash when it is known already; keys the prepared copy of a GGUF."""
    weight_format: str = ""
    """How the weights are stored, when the file says so: Q4_1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load: every field left empty is decided by what the machine has."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    context_length: int = 0
    """Lowers the context below the model's own; 0 keeps the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the engine found out about the model it loaded."""

    name: str
    architecture: str
    weight_format: str
    """How the weights are stored: Q4_1, F32, BF16."""
    dtype: str
    """What the arithmetic is done in."""
    device: str
    parameters: int
    weight_bytes: int
    """Memory the weights take as loaded."""
    context_length: int
    vocab_size: int
    layers: int
    heads: int
    kv_heads: int
    hidden_size: int
    end_ids: tuple[int, ...]
    control_ids: tuple[int, ...]
    has_chat_template: bool
    sha256: str
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of long work is. `total` 0 means that the end is not known."""

    stage: str
    done: int
    total: int
    unit: Literal["bytes", "tokens", "tensors", "steps"] = "steps"
