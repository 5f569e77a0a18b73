"""Facts about a loaded model, as the header and `chatapp models info` show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

RUNTIMES = ("auto", "llama.cpp", "transformers")
"""What can run a model; auto takes llama.cpp for GGUF files, transformers for the rest."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files are on this machine, or which server runs it."""

    name: str
    """What the screen calls it; of a server empty for its only model."""
    path: str
    """The address of a server, as far as its API goes: http://host:8000/v1."""
    kind: Literal["folder", "gguf", "server"]
    sha256: str = ""
    """The file's hash when it is known already; keys the prepared copy of a GGUF."""
    weight_format: str = ""
    """How the weights are stored, when the file says so: Q4_1."""
    key_variable: str = ""
    """Which environment variable holds a server's key. The key itself is read where it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How to load: every field left empty is decided by what the machine has."""

    runtime: str = "auto"
    """auto, llama.cpp or transformers."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    threads: int = 0
    """CPU threads; 0 leaves it to the runtime."""
    context_length: int = 0
    """Lowers the context below the model's own; 0 keeps the model's."""
    kept_megabytes: int = 0
    """Room on the disk for the KV caches of long texts, of llama.cpp's; 0 keeps none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the engine found out about the model it loaded."""

    name: str
    runtime: str
    """What runs it: llama.cpp, transformers, or a server of `chatapp.chat.served`. Of a model that
    a server runs, numbers that it does not tell are 0."""
    architecture: str = ""
    weight_format: str = ""
    """How the weights are stored: Q4_1, F32, BF16."""
    dtype: str = ""
    """What the weights are in memory: float32, bfloat16, float16; "as stored" where they are used
    as the file has them."""
    device: str
    threads: int = 0
    """CPU threads that it computes with."""
    parameters: int = 0
    context_length: int
    context_bytes: int = 0
    """Memory that the keys and values of a full context take; 0 where they take none."""
    vocab_size: int = 0
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    hidden_size: int = 0
    end_ids: tuple[int, ...] = ()
    control_ids: tuple[int, ...] = ()
    has_chat_template: bool
    sha256: str
    load_seconds: float = 0.0
    thinking_switch: str = ""
    """The variable by which its chat template has it think or not; empty where it has none."""
    note: str = ""
    """What the user should know of how it was loaded; one line, empty when there is nothing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of long work is. `total` 0 means that the end is not known."""

    stage: str
    done: int
    total: int
    unit: Literal["bytes", "tokens", "tensors", "steps"] = "steps"


Report = Callable[[Progress], None]
"""Is told how far a piece of work is."""
IsCancelled = Callable[[], bool]
"""Is asked now and then whether a piece of work is to end."""
