"""GGUF files that other programs fetched: read where they lie, never changed.

LM Studio keeps publisher/repository/file.gguf in a folder of its own. Ollama keeps files by their
hash ("blobs") and, by host, namespace, name and tag, a manifest that says which of them is a model.
Any other folder that the user names is looked through for .gguf files.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

OLLAMA = "ollama:"
"""Before the name and tag of a model of Ollama's: ollama:llama3.2:1b."""

Program = Literal["LM Studio", "Ollama", "your folder"]

_MOST = 500
"""How many files or manifests of a folder are looked at."""
_MANIFEST_BYTES = 1 << 20
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A GGUF file of another program's."""

    ref: str
    """What loads it."""
    name: str
    path: Path
    program: Program


def found_elsewhere(folders: Iterable[str] = ()) -> Iterator[Found]:
    """What other programs have on this machine; what cannot be read is passed over.

    `folders`: others to look through, as the user named them.
    """
    home = Path.home()
    studio = (home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models")
    named = [(Path(folder).expanduser(), "your folder") for folder in folders]
    seen: set[Path] = set()
    for folder, program in [*((one, "LM Studio") for one in studio), *named]:
        for path in _ggufs(folder):
            if path not in seen:
                seen.add(path)
                yield Found(str(path), path.stem, path, program)  # type: ignore[arg-type]
    for name, path in _ollama_models():
        yield Found(f"{OLLAMA}{name}", name, path, "Ollama")


def ollama_model(name: str) -> Path | None:
    """The file of a model of Ollama's; the tag is latest where none is given."""
    wanted = name if ":" in name else f"{name}:latest"
    return next((path for known, path in _ollama_models() if known == wanted), None)


def _ggufs(folder: Path) -> list[Path]:
    found: Iterator[Path] = (
        path
        for pattern in ("*.gguf", "*/*.gguf", "*/*/*.gguf")
        for path in folder.glob(pattern)
        if not path.name.startswith("mmproj") and path.is_file()
    )
    with contextlib.suppress(OSError):
        return sorted(itertools.islice(found, _MOST))
    return []


def _ollama_models() -> Iterator[tuple[str, Path]]:
    own = os.environ.get("OLLAMA_MODELS")
    service = Path("/usr/share/ollama/.ollama/models")
    for folder in [Path(own)] if own else [Path.home() / ".ollama" / "models", service]:
        with contextlib.suppress(OSError):
            manifests = sorted(itertools.islice(folder.glob("manifests/*/*/*/*"), _MOST))
            for manifest in manifests:
                *_, namespace, name, tag = manifest.parts
                blob = _model_blob(folder, manifest)
                if blob is not None:
                    prefix = "" if namespace == "library" else f"{namespace}/"
                    yield f"{prefix}{name}:{tag}", blob


def _model_blob(folder: Path, manifest: Path) -> Path | None:
    """The file that a manifest names as the model; None where it names none that is here."""
    try:
        if not manifest.is_file() or manifest.stat().st_size > _MANIFEST_BYTES:
            return None
        value: Any = json.loads(manifest.read_text("utf-8"))
        digests = [
            layer["digest"] for layer in value["layers"] if layer["mediaType"] == _MODEL_LAYER
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    for digest in digests:
        if isinstance(digest, str) and _DIGEST.fullmatch(digest):
            blob = folder / "blobs" / digest.replace(":", "-")
            if blob.is_file():
                return blob
    return None
