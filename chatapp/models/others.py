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
from pathlib import Path
from typing import Any

from chatapp.models.catalog import is_whole
from chatapp.models.facts import InstalledModel, Origin

OLLAMA = "ollama:"
"""Before the name and tag of a model of Ollama's: ollama:llama3.2:1b."""

_MOST = 500
"""How many files or manifests of a folder are looked at."""
_MANIFEST_BYTES = 1 << 20
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def found_elsewhere(folders: Iterable[str] = ()) -> Iterator[InstalledModel]:
    """What other programs have on this machine, not looked into; what can't be read is passed over.

    `folders`: others to look through, as the user named them.
    """
    places: list[tuple[Path, Origin]] = [
        (Path.home() / ".lmstudio" / "models", "LM Studio"),
        (Path.home() / ".cache" / "lm-studio" / "models", "LM Studio"),
        *((Path(folder).expanduser(), "your folder") for folder in folders),
    ]
    found: dict[Path, Origin] = {}
    for folder, origin in places:
        for path in _ggufs(folder):
            found.setdefault(path, origin)
    models = [(str(path), path.stem, path, origin) for path, origin in found.items()]
    models += [(f"{OLLAMA}{name}", name, path, "Ollama") for name, path in _ollama_models()]
    for ref, name, path, origin in models:
        yield InstalledModel(ref=ref, name=name, kind="gguf", path=path, origin=origin)


def ollama_model(name: str) -> Path | None:
    """The file of a model of Ollama's; the tag is latest where none is given."""
    wanted = name if ":" in name else f"{name}:latest"
    return next((path for known, path in _ollama_models() if known == wanted), None)


def _ggufs(folder: Path) -> list[Path]:
    found: Iterator[Path] = (
        path
        for pattern in ("*.gguf", "*/*.gguf", "*/*/*.gguf")
        for path in folder.glob(pattern)
        if is_whole(path.name) and path.is_file()
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
