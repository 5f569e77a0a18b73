"""What the Hugging Face Hub knows about a repository, and what its cache on this machine holds.

The user's own settings hold: HF_ENDPOINT, HF_TOKEN (or the token of `hf auth login`), HF_HOME,
HF_HUB_CACHE. Importing huggingface_hub is left to the moment the Hub is asked.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from chatapp.models.catalog import has_quantization, is_part, is_quantization
from chatapp.models.errors import SourceFailed
from chatapp.models.safetensors_folder import INDEX, PICKLES, SINGLE

ASK_SECONDS = 10.0

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SIDE_FILES = (".json", ".jinja", ".txt", ".tiktoken")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repository, as the Hub lists it."""

    name: str
    size: int
    sha256: str
    """Of files in large storage; empty for small ones."""
    git_sha1: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: tuple[RepoFile, ...]


def is_repo_id(text: str) -> bool:
    """Whether a text has the form owner/name."""
    return bool(_REPO.fullmatch(text)) and "--" not in text and ".." not in text


def endpoint() -> str:
    """Where the Hub is: HF_ENDPOINT, else huggingface_hub's own default."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def is_offline() -> bool:
    """Whether the environment forbids the network: HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def token() -> str:
    """The user's token for the Hub; empty when there is none."""
    from huggingface_hub import get_token

    return get_token() or ""


def file_url(repo: str, file: str, revision: str) -> str:
    """The address of one file."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, file, revision=revision, endpoint=endpoint())


@dataclass(frozen=True, slots=True)
class FoundRepo:
    """A repository that holds GGUF files, as a search finds it."""

    repo: str
    downloads: int
    """Of the last 30 days."""


def search(text: str, limit: int = 20) -> tuple[FoundRepo, ...]:
    """Repositories with GGUF files that match a text, those first that are fetched most.

    Raises SourceFailed: the Hub cannot be reached or refuses.
    """
    import httpx2

    from chatapp.models.download import status_reason

    if is_offline():
        raise SourceFailed("HF_HUB_OFFLINE forbids asking")
    asked: dict[str, str | int] = {
        "search": text,
        "filter": "gguf",
        "sort": "downloads",
        "limit": limit,
    }
    own = {"Authorization": f"Bearer {found}"} if (found := token()) else {}
    with _asking():  # huggingface_hub's own search tries for half a minute, and says so each time
        answer = httpx2.get(
            f"{endpoint()}/api/models", params=asked, headers=own, timeout=ASK_SECONDS
        )
        if answer.is_error:
            raise SourceFailed(status_reason(answer.status_code))
        return tuple(
            FoundRepo(one["id"], int(one.get("downloads") or 0))
            for one in answer.json()[:limit]
            if is_repo_id(one["id"])
        )


@contextlib.contextmanager
def _asking(repo: str = "", revision: str = "") -> Iterator[None]:
    """While it lasts, whatever asking the Hub raises is SourceFailed, in words."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from chatapp.models.download import plain_reason, status_reason

    try:
        yield
    except GatedRepoError:
        raise SourceFailed(
            f"{repo} is gated: accept its terms on its page and give a token as HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise SourceFailed(
            f"there is no repository {repo}, or it is private; for that give a token as HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise SourceFailed(f"{repo} has no revision {revision}") from None
    except HfHubHTTPError as error:
        raise SourceFailed(status_reason(error.response.status_code)) from None
    except OfflineModeIsEnabled:
        raise SourceFailed("HF_HUB_OFFLINE forbids asking") from None
    except httpx2.HTTPError as error:
        host = urlsplit(endpoint()).hostname
        raise SourceFailed(f"{host}: {plain_reason(error)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceFailed(f"its answer makes no sense ({type(error).__name__})") from None


def list_repo(repo: str, revision: str = "main") -> Listing:
    """Ask the Hub for the files of a repository, with their sizes and hashes.

    Raises SourceFailed: the Hub cannot be reached, refuses, or has no such repository.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    with _asking(repo, revision):
        found = api.model_info(repo, revision=revision, files_metadata=True, timeout=ASK_SECONDS)
    files = tuple(
        RepoFile(
            name=file.rfilename,
            size=(file.lfs.size if file.lfs else file.size) or 0,
            sha256=(file.lfs.sha256 if file.lfs else "") or "",
            git_sha1="" if file.lfs else file.blob_id or "",
        )
        for file in found.siblings or ()
    )
    return Listing(found.sha or revision, files)


def model_files(repo: str, listing: Listing) -> tuple[RepoFile, ...]:
    """The files of a repository that loading a model needs: never a pickle, never code.

    Raises:
        SourceFailed: there are no safetensors weights.
    """
    top = [file for file in listing.files if is_plain_name(file.name)]
    names = {file.name for file in top}
    weights = [file for file in top if file.name == SINGLE]
    if not weights and INDEX in names:
        weights = [file for file in top if _SHARD.fullmatch(file.name)]
    weights = weights or [file for file in top if file.name.endswith(".safetensors")]
    if weights and "config.json" in names:
        side = [
            file
            for file in top
            if file.name.endswith(_SIDE_FILES) or file.name == "tokenizer.model"
        ]
        return (*side, *weights)
    if ggufs := gguf_names(listing.files):
        raise SourceFailed(f"{repo} holds GGUF files; name one of them: {_some(repo, ggufs)}")
    if any(name.endswith(PICKLES) for name in names):
        raise SourceFailed(
            f"{repo} has only pickled weights, which can run code when opened; "
            "use one with safetensors or GGUF weights"
        )
    raise SourceFailed(f"{repo} holds no language model with safetensors or GGUF weights")


def find_file(repo: str, listing: Listing, name: str) -> RepoFile:
    """One file of a listing. Raises SourceFailed when it is not there."""
    for file in listing.files:
        if file.name == name:
            return file
    ggufs = gguf_names(listing.files)
    if is_quantization(name):
        found = [one for one in listing.files if has_quantization(one.name, name)]
        if found:
            return min(found, key=lambda one: len(one.name))
        parts = [one for one in ggufs if is_part(one) and name.casefold() in one.casefold()]
        if parts:
            raise SourceFailed(
                f"{repo} has {name} only in {len(parts)} parts, which aren't put together here;"
                " choose another quantization"
            )
    others = f"; it has {_some(repo, ggufs)}" if ggufs else ""
    raise SourceFailed(f"{repo} has no file {name}{others}")


def gguf_names(files: Iterable[RepoFile]) -> list[str]:
    """The GGUF files of a listing."""
    return sorted(file.name for file in files if file.name.endswith(".gguf"))


def is_plain_name(name: str) -> bool:
    """Whether a name that came over the network stays within the folder it is written to."""
    return bool(re.fullmatch(r"[\w][\w.+ -]*", name)) and not name.endswith((".", " "))


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached(repo: str, file: str, revision: str) -> Path | None:
    """A file of a repository in the Hub's cache on this machine, without any network."""
    cache = cache_folder()
    if not os.path.isdir(cache):  # unlike Path.is_dir, false also where looking is forbidden
        return None
    if is_quantization(file):
        folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
        ggufs = sorted(folder.glob("*/*.gguf"))
        return next((one for one in ggufs if has_quantization(one.name, file)), None)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, cache_dir=cache, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _some(repo: str, names: list[str]) -> str:
    shown = ", ".join(f"{repo}:{name}" for name in names[:6])
    return shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")
