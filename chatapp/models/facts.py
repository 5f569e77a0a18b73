"""Models on this machine, and what their files tell without being loaded: GGUF files, folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Origin = Literal["chatapp", "hub cache", "LM Studio", "Ollama", "your folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """Texts are as the files have them: not sanitised. 0 and empty where they don't say."""

    name: str = ""
    architecture: str
    weight_format: str
    context_length: int
    vocab_size: int
    layers: int
    hidden_size: int
    kv_values: int
    """Numbers that the KV cache keeps for a token."""
    parameters: int
    """Elements of all tensors; where weights are packed, fewer than the model counts."""
    tensors: int
    license: str = ""
    has_chat_template: bool
    size: int
    """Of the weights, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """A model on this machine that can be loaded without fetching anything."""

    ref: str
    """What loads it."""
    name: str
    kind: Literal["folder", "gguf"]
    path: Path
    origin: Origin
    facts: FileFacts | None = None
    """None where it can't be loaded."""
    problem: str = ""
    """Why it can't be loaded after all; empty when it can."""

    @property
    def size(self) -> int:
        """Of its weights, in bytes."""
        return self.facts.size if self.facts else size_of(self.path)

    @property
    def weight_format(self) -> str:
        return self.facts.weight_format if self.facts else ""


def size_of(path: Path) -> int:
    """The bytes of a file, or of all in a folder; 0 where there is none. Raises OSError."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def kv_values(
    layers: int, hidden_size: int, heads: int, kv_heads: int, key: int = 0, value: int = 0
) -> int:
    """Of a model of the usual kind: some keep less, in layers that look back a little only.

    `kv_heads`, and the widths of a head's `key` and `value`: 0 where they are the usual ones.
    """
    usual = hidden_size // heads if heads else 0
    return layers * (kv_heads or heads) * ((key or usual) + (value or usual))


def most_common(tensors: Iterable[tuple[str, int]]) -> str:
    """The type that most elements are of, given each tensor's type and elements."""
    elements: Counter[str] = Counter()
    for name, count in tensors:
        elements[name] += count
    return elements.most_common(1)[0][0] if elements else ""
