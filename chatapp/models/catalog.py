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
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

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


_QUANTIZATION = re.compile(r"(I?Q\d\w*|B?F16|FP16|F32|MXFP4\w*|TQ\d\w*)", re.IGNORECASE)

Source = HubFile | HubFolder | WheelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A model that can be fetched: of the catalog, or made from a Hub reference."""

    id: str
    """What the user writes to mean it."""
    name: str
    """What the screen calls it."""
    kind: Literal["folder", "gguf"]
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

    installed: ClassVar[bool] = False


@functools.cache
def catalog() -> tuple[CatalogEntry, ...]:
    """All entries, the default first."""
    values = tomllib.loads((assets() / "catalog.toml").read_text("utf-8"))
    return tuple(_entry(model) for model in values["model"])


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


def hub_folder_entry(repo: str) -> CatalogEntry:
    """An entry for a Hub repository that the user named by its id."""
    for entry in catalog():
        if any(isinstance(source, HubFolder) and source.repo == repo for source in entry.sources):
            return entry
    return CatalogEntry(
        id=repo,
        name=repo.partition("/")[2],
        kind="folder",
        local_name=repo.replace("/", "--"),
        sources=(HubFolder(repo),),
    )


def is_quantization(text: str) -> bool:
    """Whether a text names a way to store weights (Q4_K_M), and no file."""
    return bool(_QUANTIZATION.fullmatch(text))


def has_quantization(file: str, name: str) -> bool:
    """Whether a GGUF file's name ends with that quantization, upper or lower case."""
    stem = file.casefold().removesuffix(".gguf")
    return file.endswith(".gguf") and bool(
        re.search(rf"(^|[-._/]){re.escape(name.casefold())}$", stem)
    )


def hub_file_entry(repo: str, file: str) -> CatalogEntry:
    """An entry for one GGUF file of a Hub repository, named by the user or by its quantization."""
    for entry in catalog():
        if any(
            isinstance(source, HubFile) and (source.repo, source.file) == (repo, file)
            for source in entry.sources
        ):
            return entry
    name, local_name = PurePosixPath(file).stem, f"{repo}/{file}".replace("/", "--")
    if is_quantization(file):
        name = f"{repo.partition('/')[2].removesuffix('-GGUF')} {file}"
        local_name += ".gguf"
    return CatalogEntry(
        id=f"{repo}:{file}",
        name=name,
        kind="gguf",
        local_name=local_name,
        sources=(HubFile(repo, file),),
    )


_SOURCES: Mapping[str, Callable[..., Source]] = {
    "hub-file": HubFile,
    "hub-folder": HubFolder,
    "wheel": WheelFile,
}


def _entry(values: Mapping[str, Any]) -> CatalogEntry:
    fields = dict(values)
    sources = tuple(_source(source) for source in fields.pop("source"))
    first = sources[0]
    whole = isinstance(first, HubFolder)
    if isinstance(first, HubFolder):
        local_name = first.repo.replace("/", "--")
    else:
        path = first.file if isinstance(first, HubFile) else first.member
        local_name = PurePosixPath(path).name
    return CatalogEntry(
        kind="folder" if whole else "gguf", local_name=local_name, sources=sources, **fields
    )


def _source(values: Mapping[str, Any]) -> Source:
    fields = dict(values)
    return _SOURCES[fields.pop("kind")](**fields)
