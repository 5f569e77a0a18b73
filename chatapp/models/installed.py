"""The models on this machine: listed, described, removed.

Two places are looked into: the folder of what chatapp fetched, and the Hub's cache, which other
programs share. Nothing here uses the network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chatapp.chat.errors import ModelError
from chatapp.models import hub
from chatapp.models.catalog import (
    CatalogEntry,
    HubFile,
    HubFolder,
    catalog,
    hub_entry,
    is_quantization,
    is_whole,
)
from chatapp.models.download import disk_error
from chatapp.models.errors import RefusedModel, UnknownModel
from chatapp.models.facts import FileFacts, InstalledModel, Origin, size_of
from chatapp.models.gguf_file import check_gguf
from chatapp.models.local import find_local, forget, leftovers, own_path, remembered_sha256
from chatapp.models.others import found_elsewhere
from chatapp.models.resolve import entry_of, resolve
from chatapp.models.safetensors_folder import check_folder
from chatapp.settings.paths import Paths

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo


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
    cached = (model for model in _hub_models() if model.ref not in here)
    others = map(_looked_into, (*cached, *found_elsewhere(folders)))
    return (*own, *(model for model in others if not model.problem))


def _looked_into(model: InstalledModel) -> InstalledModel:
    try:
        return replace(model, facts=_facts(model.kind, model.path))
    except ModelError as error:
        return replace(model, problem=str(error))


def _facts(kind: str, path: Path) -> FileFacts:
    return check_gguf(path) if kind == "gguf" else check_folder(path)


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
    entries = [
        replace(hub_entry(repo, name), size=sizes[name])
        for name in hub.gguf_names(listing.files)
        if is_whole(name)
    ]
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
    told = asdict(_facts(source.kind, Path(source.path)))
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
        own = next((path for path in _own_files(paths) if path.resolve() == meant.resolve()), None)
        if own is None:
            raise RefusedModel(f"{meant} is not something that chatapp fetched; delete it yourself")
        meant = _entry_of_own(own.name)
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


def _own_files(paths: Paths) -> list[Path]:
    """What chatapp fetched: files, and folders."""
    try:
        found = sorted(paths.models.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelError(f"cannot read {paths.models}: {error.strerror or error}") from None
    whole = [path for path in found if path.name[0] != "." and path.suffix != ".parts"]
    return [path for path in whole if path.is_dir() or path.name.endswith(".gguf")]


def _own_models(paths: Paths) -> Iterator[InstalledModel]:
    for path in _own_files(paths):
        entry = _entry_of_own(path.name)
        model = InstalledModel(
            ref=entry.id if entry.sources else str(path),
            name=entry.name,
            kind=entry.kind,
            path=path,
            origin="chatapp",
        )
        try:
            find_local(entry, paths)
        except ModelError as error:
            yield replace(model, problem=str(error))
        else:
            yield _looked_into(model)


def _entry_of_own(name: str) -> CatalogEntry:
    """What a fetched file or folder is called, back from its name."""
    for entry in catalog():
        if entry.local_name == name:
            return entry
    owner, _, rest = name.partition("--")
    repo, _, file = rest.partition("--")
    if repo:
        quantization = file.removesuffix(".gguf")
        meant = quantization if is_quantization(quantization) else file
        entry = hub_entry(f"{owner}/{repo}", meant)
        if entry.local_name == name:
            return entry
    return CatalogEntry(id=name, name=Path(name).stem, local_name=name, sources=())


def _hub_models() -> Iterator[InstalledModel]:
    """All that may be a model in the Hub's cache, not looked into."""
    cache = _hub_cache()
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id) if cache else ():
        if repo.repo_type != "model" or not repo.revisions:
            continue
        # The revision `main` stands at, else the newest one.
        folder = max(repo.revisions, key=lambda one: ("main" in one.refs, one.last_modified))
        id_, path = repo.repo_id, folder.snapshot_path
        name = id_.partition("/")[2] or id_
        yield InstalledModel(ref=id_, name=name, kind="folder", path=path, origin="hub cache")
        for file in sorted(path.glob("*.gguf")):
            ref, name = f"{id_}:{file.name}", file.stem
            yield InstalledModel(ref=ref, name=name, kind="gguf", path=file, origin="hub cache")


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
        size = size_of(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, path) from None
    return size
