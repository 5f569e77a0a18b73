"""What the user's reference to a model means, and where that model is.

A reference is an id of the catalog, a folder, a .gguf file, a Hub repository (owner/name), one file
of such a repository (owner/name:file.gguf, owner/name:Q4_K_M) or a model of Ollama's (ollama:name).
What exists on the disk under that very name comes before the Hub; an id of the catalog comes before
both (write ./name for a folder called like one).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from chatapp.chat.errors import ModelError
from chatapp.chat.facts import IsCancelled, ModelSource, Report
from chatapp.models import hub
from chatapp.models.catalog import (
    CatalogEntry,
    find,
    hub_entry,
    is_quantization,
    near,
)
from chatapp.models.errors import DamagedModel, RefusedModel, UnknownModel
from chatapp.models.gguf_file import check_gguf
from chatapp.models.local import find_local, find_whole, remembered_sha256, sha256_of_model
from chatapp.models.others import OLLAMA, ollama_model
from chatapp.models.safetensors_folder import INDEX, PICKLES, SINGLE, check_folder
from chatapp.models.watch import Watch
from chatapp.settings.paths import Paths

_LIST = "see: chatapp models list"
_HUB_HOSTS = ("hf.co/", "huggingface.co/")
"""What other programs want before a Hub reference."""


def resolve(ref: str, paths: Paths) -> ModelSource | CatalogEntry:
    """Where a model is, or what has to be fetched first. Never uses the network.

    Raises:
        UnknownModel: nothing goes by that name. DamagedModel: a file is not whole.
        RefusedModel: pickled weights, or no causal language model.
    """
    meant = entry_of(ref)
    if isinstance(meant, Path):
        found = _at(meant, paths)
        # Ollama's files are called by their hash.
        return replace(found, name=ref.removeprefix(OLLAMA)) if ref.startswith(OLLAMA) else found
    return find_local(meant, paths) or meant


def missing(ref: str, paths: Paths) -> CatalogEntry | None:
    """What has to be fetched before the model can be loaded; None when it is here.

    A damaged copy of chatapp's own counts as missing: fetching it again is the remedy.

    Raises:
        UnknownModel: nothing goes by that name. DamagedModel, RefusedModel: as `resolve`, for the
        person's own files.
    """
    meant = entry_of(ref)
    if isinstance(meant, Path):
        _at(meant, paths)
        return None
    return None if find_whole(meant, paths) else meant


def obtain(
    ref: str,
    paths: Paths,
    *,
    offline: bool = False,
    on_progress: Report | None = None,
    cancelled: IsCancelled | None = None,
) -> ModelSource:
    """A model ready to be loaded, fetched first where it has to be. Blocks; run it in a thread.

    A GGUF file's hash is always known in the result (`sha256`): read once, then remembered.

    Raises:
        ModelError: it is unknown, damaged or refused. FetchError: it could not be fetched;
        its kinds FetchStopped and OfflineError say that it was not tried to the end.
    """
    watch = Watch(on_progress, cancelled)
    entry = missing(ref, paths)
    if entry is not None:
        from chatapp.models.fetch import fetch

        fetch(entry, paths, on_progress=on_progress, cancelled=cancelled, offline=offline)
    source = resolve(ref, paths)
    if isinstance(source, CatalogEntry):
        raise DamagedModel(f"{source.name} was fetched and is gone again; run the command again")
    if source.kind == "gguf" and not source.sha256:
        source = replace(source, sha256=sha256_of_model(Path(source.path), paths, watch))
    return source


def entry_of(ref: str) -> CatalogEntry | Path:
    """What a reference means: something of the catalog or the Hub, or a path on this machine.

    Raises:
        UnknownModel: it is none of these.
    """
    ref = ref.strip()
    if not ref:
        raise UnknownModel(f"the model's name is empty; {_LIST}")
    if entry := find(ref):
        return entry
    if "://" in ref:
        raise UnknownModel(
            f"{ref} is an address; give a catalog id, a Hub repo id (owner/name), a folder or a "
            ".gguf file"
        )
    if ref.startswith(OLLAMA):
        if (blob := ollama_model(ref.removeprefix(OLLAMA))) is None:
            raise UnknownModel(f"Ollama has no model {ref.removeprefix(OLLAMA)} here; {_LIST}")
        return blob
    path = Path(os.path.expanduser(ref))  # ~somebody who is not known here stays as it is
    if _exists(path):
        return path
    for host in _HUB_HOSTS:
        ref = ref.removeprefix(host)
    repo, colon, file = ref.partition(":")
    if hub.is_repo_id(repo) and colon:
        if is_quantization(file):
            return hub_entry(repo, file.upper())
        if not file.endswith(".gguf") or not all(map(hub.is_plain_name, file.split("/"))):
            raise UnknownModel(
                f"{ref}: after the colon stands the name of a .gguf file, or a quantization: Q4_K_M"
            )
        return hub_entry(repo, file)
    if _looks_like_a_path(ref):
        raise UnknownModel(f"there is no file or folder {path}; {_LIST}")
    if hub.is_repo_id(ref):
        return hub_entry(ref)
    similar = near(ref)
    guess = f"did you mean {' or '.join(similar)}? " if similar else ""
    raise UnknownModel(f"there is no model {ref!r}; {guess}{_LIST}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError as error:
        raise UnknownModel(f"cannot look at {path}: {error.strerror}") from None
    except (OSError, ValueError):  # longer than a name can be, or with a NUL in it
        return False


def _looks_like_a_path(ref: str) -> bool:
    if ref.startswith(("/", "./", "../", "~", ".\\", "..\\")) or ref in (".", ".."):
        return True
    return ref.endswith((".gguf", "/", "\\")) or ref.count("/") > 1 or "\\" in ref


def _at(path: Path, paths: Paths) -> ModelSource:
    """The model at a path of the user's own. Raises ModelError."""
    path = path.absolute()
    if path.is_dir():
        return _in_folder(path, paths)
    if not path.is_file():
        raise RefusedModel(f"{path} is no regular file")
    if path.suffix in PICKLES:
        raise RefusedModel(
            f"{path} is a pickle, which can run code when opened; "
            "use a model with safetensors or GGUF weights"
        )
    if path.suffix == ".safetensors":
        raise RefusedModel(f"{path} is a part of a model; name its folder instead: {path.parent}")
    sha256 = remembered_sha256(paths, path)
    if not sha256:
        check_gguf(path)
    return ModelSource(path.stem, str(path), "gguf", sha256)


def _in_folder(folder: Path, paths: Paths) -> ModelSource:
    """A folder's model: safetensors with a configuration, else its one GGUF file."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DamagedModel(f"cannot read {folder}: {error.strerror or error}") from None
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs and SINGLE not in names and INDEX not in names:
        if len(ggufs) > 1:
            raise ModelError(f"{folder} holds several models; name one: {', '.join(ggufs[:6])}")
        return _at(folder / ggufs[0], paths)
    check_folder(folder)
    return ModelSource(_folder_name(folder), str(folder), "folder")


def _folder_name(folder: Path) -> str:
    """A folder's name; for a snapshot in the Hub's cache that of its repository."""
    parent = folder.parent
    if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
        return parent.parent.name.rpartition("--")[2]
    return folder.resolve().name or str(folder)
