"""The models on this machine: listed, described, removed.

Two places are looked into: the folder of what chatapp fetched, and the Hub's cache, which other
programs share. Nothing here uses the network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from chatapp.chat.errors import ModelError
from chatapp.chat.facts import ModelSource
from chatapp.models import hub
from chatapp.models.catalog import (
    CatalogEntry,
    HubFile,
    HubFolder,
    catalog,
    hub_file_entry,
    is_quantization,
)
from chatapp.models.download import disk_error
from chatapp.models.errors import RefusedModel, UnknownModel
from chatapp.models.gguf_file import GgufFacts, check_gguf
from chatapp.models.local import find_local, leftovers, own_path
from chatapp.models.others import Found, found_elsewhere
from chatapp.models.resolve import entry_of, resolve
from chatapp.models.safetensors_folder import FolderFacts, check_folder
from chatapp.models.verified import forget, remembered_sha256
from chatapp.settings.paths import Paths

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

Origin = Literal["chatapp", "hub cache", "LM Studio", "Ollama", "your folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """A model on this machine that can be loaded without fetching anything."""

    ref: str
    """What loads it."""
    name: str
    kind: Literal["folder", "gguf"]
    path: Path
    facts: GgufFacts | FolderFacts | None
    """None where it can't be loaded."""
    origin: Origin
    problem: str = ""
    """Why it can't be loaded after all; empty when it can."""

    @property
    def installed(self) -> bool:
        """Whether it can be loaded."""
        return not self.problem

    @property
    def size(self) -> int:
        """Of its weights, in bytes."""
        return self.facts.size if self.facts else _size_of(self.path)

    @property
    def weight_format(self) -> str:
        return self.facts.weight_format if self.facts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Everything known of a model without loading it; 0 and empty where it is not known."""

    ref: str
    name: str
    kind: Literal["folder", "gguf"]
    installed: bool = False
    path: str = ""
    size: int = 0
    sha256: str = ""
    license: str = ""
    sources: tuple[str, ...] = ()
    description: str = ""
    architecture: str = ""
    weight_format: str = ""
    parameters: int = 0
    tensors: int = 0
    layers: int = 0
    hidden_size: int = 0
    kv_values: int = 0
    vocab_size: int = 0
    context_length: int = 0
    has_chat_template: bool = False


@dataclass(frozen=True, slots=True)
class Removed:
    """What was deleted."""

    ref: str
    path: Path
    size: int
    """Bytes that came free."""
    origin: Origin


def installed(paths: Paths, folders: Iterable[str] = ()) -> tuple[InstalledModel, ...]:
    """All models on this machine, chatapp's own first. `folders`: others that are looked into."""
    own = tuple(_own_models(paths))
    here = {model.ref for model in own}
    others = (model for found in found_elsewhere(folders) if (model := _other_model(found)))
    return (*own, *(model for model in _hub_models() if model.ref not in here), *others)


def fetchable(here: Iterable[InstalledModel]) -> list[CatalogEntry]:
    """What of the catalog is not among these, by its own name or its repository's."""
    refs = {model.ref for model in here}

    def names(entry: CatalogEntry) -> set[str]:
        repos = (source.repo for source in entry.sources if isinstance(source, HubFolder))
        return {entry.id, *repos}

    return [entry for entry in catalog() if not names(entry) & refs]


def repo_files(repo: str) -> list[CatalogEntry]:
    """The GGUF files of a Hub repository, the smallest first. Raises SourceFailed."""
    listing = hub.list_repo(repo)
    sizes = {file.name: file.size for file in listing.files}
    names = [
        name
        for name in hub.gguf_names(listing.files)
        if not PurePosixPath(name).name.startswith("mmproj") and not hub.is_part(name)
    ]
    entries = [replace(hub_file_entry(repo, name), size=sizes[name]) for name in names]
    return sorted(entries, key=lambda entry: entry.size)


def info(ref: str, paths: Paths) -> ModelInfo:
    """What is known of a model, from its header or configuration where it is here.

    Raises:
        UnknownModel: nothing goes by that name. DamagedModel, RefusedModel: as `resolve`.
    """
    meant = entry_of(ref)
    source = resolve(ref, paths)
    known: dict[str, Any] = {"ref": ref}
    if isinstance(meant, CatalogEntry):
        names = ("name", "kind", "description", "license", "weight_format", "size", "sha256")
        known = {name: getattr(meant, name) for name in names}
        known |= {"ref": meant.id, "sources": tuple(map(str, meant.sources))}
    if isinstance(source, CatalogEntry):
        return ModelInfo(**known)
    told = asdict(_facts(source))
    if known.get("license"):
        told.pop("license", None)  # the catalog's own is the licence's SPDX identifier
    here = {name: getattr(source, name) for name in ("name", "kind", "path")}
    sha256 = source.sha256 or remembered_sha256(paths, Path(source.path))
    return ModelInfo(**known | told | here | {"installed": True, "sha256": sha256})


def remove(ref: str, paths: Paths) -> Removed:
    """Delete a fetched model, and what a cut fetch of it left; never the user's own files.

    Raises:
        RefusedModel: the reference is a path outside of what was fetched.
        UnknownModel: nothing goes by that name, or it is not here. FetchError: it can't be deleted.
    """
    meant = entry_of(ref)
    if isinstance(meant, Path):
        own = next((model for model in _own_models(paths) if _same(model.path, meant)), None)
        if own is None:
            raise RefusedModel(f"{meant} is not something that chatapp fetched; delete it yourself")
        meant = _entry_of_own(own.path.name)
    path = own_path(meant, paths)
    found = [part for part in (path, *leftovers(meant, paths)) if part.exists()]
    if found:
        size = sum(map(_delete, found))
        _delete(path.with_name(f".{path.name}.lock"))
        forget(paths, path)
        return Removed(meant.id, path, size, "chatapp")
    if removed := _remove_from_hub_cache(meant):
        return removed
    raise UnknownModel(f"{meant.name} is not on this machine; see: chatapp models list")


def _own_models(paths: Paths) -> Iterator[InstalledModel]:
    try:
        found = sorted(paths.models.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ModelError(f"cannot read {paths.models}: {error.strerror or error}") from None
    for path in found:
        if path.name.startswith(".") or path.name.endswith(".parts"):
            continue
        if path.is_dir() or path.name.endswith(".gguf"):
            yield _own_model(_entry_of_own(path.name), path, paths)


def _entry_of_own(name: str) -> CatalogEntry:
    """What a fetched file or folder is called, back from its name."""
    for entry in catalog():
        if entry.local_name == name:
            return entry
    kind: Literal["folder", "gguf"] = "gguf" if name.endswith(".gguf") else "folder"
    owner, _, rest = name.partition("--")
    repo, _, file = rest.partition("--")
    if is_quantization(file.removesuffix(".gguf")):
        return hub_file_entry(f"{owner}/{repo}", file.removesuffix(".gguf"))
    ref = name if not repo else f"{owner}/{repo}" + (f":{file}" if file else "")
    title = Path(file).stem if file else repo or Path(name).stem
    sources = (HubFile(f"{owner}/{repo}", file),) if file else (HubFolder(f"{owner}/{repo}"),)
    return CatalogEntry(
        id=ref, name=title, kind=kind, local_name=name, sources=sources if repo else ()
    )


def _own_model(entry: CatalogEntry, path: Path, paths: Paths) -> InstalledModel:
    facts, problem = None, ""
    try:
        if source := find_local(entry, paths):
            facts = _facts(source)
    except ModelError as error:
        problem = str(error)
    return InstalledModel(
        ref=entry.id if entry.sources else str(path),
        name=entry.name,
        kind=entry.kind,
        path=path,
        facts=facts,
        origin="chatapp",
        problem=problem,
    )


def _facts(source: ModelSource) -> GgufFacts | FolderFacts:
    path = Path(source.path)
    return check_gguf(path) if source.kind == "gguf" else check_folder(path)


def _other_model(found: Found) -> InstalledModel | None:
    try:
        facts = check_gguf(found.path)
    except ModelError:
        return None
    return InstalledModel(
        ref=found.ref,
        name=found.name,
        kind="gguf",
        path=found.path,
        facts=facts,
        origin=found.program,
    )


def _hub_models() -> Iterator[InstalledModel]:
    """Causal language models in the Hub's cache; whatever else is there is passed over."""
    cache = _hub_cache()
    if cache is None:
        return
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id):
        if repo.repo_type != "model":
            continue
        folder = _snapshot(repo)
        for path in (folder, *sorted(folder.glob("*.gguf"))) if folder else ():
            if model := _hub_model(repo.repo_id, path):
                yield model


def _hub_model(repo: str, path: Path) -> InstalledModel | None:
    kind: Literal["folder", "gguf"] = "folder" if path.is_dir() else "gguf"
    name = repo.partition("/")[2] or repo
    try:
        facts = check_folder(path) if kind == "folder" else check_gguf(path)
    except ModelError:
        return None
    return InstalledModel(
        ref=repo if kind == "folder" else f"{repo}:{path.name}",
        name=name if kind == "folder" else path.stem,
        kind=kind,
        path=path,
        facts=facts,
        origin="hub cache",
    )


def _hub_cache() -> HFCacheInfo | None:
    folder = hub.cache_folder()
    if not os.path.isdir(folder):
        return None
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(folder)
    except (CacheNotFound, OSError, ValueError):
        return None


def _snapshot(repo: CachedRepoInfo) -> Path | None:
    """The revision `main` stands at, else the newest one."""
    newest = sorted(
        repo.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified)
    )
    return newest[-1].snapshot_path if newest else None


def _remove_from_hub_cache(entry: CatalogEntry) -> Removed | None:
    cache = _hub_cache()
    wanted = {source.repo for source in entry.sources if isinstance(source, HubFile | HubFolder)}
    if cache is None:
        return None
    for repo in cache.repos:
        if repo.repo_type == "model" and repo.repo_id in wanted:
            # Of this repository alone: a duplicate of it has revisions of the same hashes.
            alone = replace(cache, repos=frozenset({repo}))
            plan = alone.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
            plan.execute()
            return Removed(entry.id, repo.repo_path, plan.expected_freed_size, "hub cache")
    return None


def _delete(path: Path) -> int:
    """Delete a file or a folder; returns its bytes, 0 when there was none. Raises FetchError."""
    try:
        size = _size_of(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, path) from None
    return size


def _size_of(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
