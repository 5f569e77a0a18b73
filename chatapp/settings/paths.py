"""Where files live: configuration, data, cache and state, by the platform's own rules.

`CHATAPP_HOME` moves all of them under one folder. Folders are made with 0700 when first used.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from chatapp.chat.errors import ChatappError


class PathError(ChatappError):
    """A folder that cannot be made or written; the message names it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The four folders everything lives in."""

    config: Path
    data: Path
    cache: Path
    state: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def templates(self) -> Path:
        return self.config / "templates"

    @property
    def presets(self) -> Path:
        return self.config / "presets"

    @property
    def formats(self) -> Path:
        return self.config / "formats"

    @property
    def database(self) -> Path:
        return self.data / "chats.db"

    @property
    def models(self) -> Path:
        """Model files that chatapp fetched."""
        return self.data / "models"

    @property
    def prepared(self) -> Path:
        """Models converted once to be loaded quickly; safe to delete."""
        return self.cache / "prepared"

    @property
    def logs(self) -> Path:
        """What the engine process wrote to its standard error."""
        return self.state / "logs"


def default_paths(home: str = "") -> Paths:
    """The folders of this machine and user, or those under `home`, else CHATAPP_HOME."""
    if home := home or os.environ.get("CHATAPP_HOME", ""):
        root = Path(home).expanduser().absolute()
        return Paths(root / "config", root / "data", root / "cache", root / "state")
    dirs = platformdirs.PlatformDirs("chatapp", appauthor=False)
    return Paths(
        dirs.user_config_path, dirs.user_data_path, dirs.user_cache_path, dirs.user_state_path
    )


FILE_NAME = re.compile(r"[\w][\w .-]{0,39}")
"""What a preset or a template can be called, so that the name is a file's and no path."""
FILE_NAME_WORDS = "up to 40 letters, digits, blanks, dots, dashes"


def make_folder(folder: Path) -> Path:
    """Make a folder only its owner can enter, with its parents. Raises PathError."""
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise PathError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


def write_file(file: Path, text: str) -> None:
    """Put a whole new file in the place of the old one, readable by its owner only.

    Raises PathError: its folder cannot be made. Raises OSError: it cannot be written; the old one
    stands.
    """
    make_folder(file.parent)
    put_in_place(file.resolve(), text)  # a link to the file kept elsewhere stays a link


def put_in_place(file: Path, text: str) -> None:
    """Write beside a file, then give it that name in one step. Raises OSError; nothing is left."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")  # 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def assets() -> Path:
    """The folder of templates, formats and catalog: in the wheel, or beside the package."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "assets"
    return shipped if shipped.is_dir() else package.parent / "assets"
