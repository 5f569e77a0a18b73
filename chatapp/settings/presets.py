"""Named presets: all sampling parameters under a name, each in a small TOML file of the user's.

Only what differs from the defaults is written, so that a preset stays readable and a parameter of a
later version takes its own default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType

from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import ParameterError, SamplingParams, read_table, table_text
from chatapp.chat.template import Template
from chatapp.settings.paths import FILE_NAME, FILE_NAME_WORDS, write_file

GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)

BUILT_IN: Mapping[str, SamplingParams] = {
    "default": SamplingParams(),
    "greedy": GREEDY,
    "cool": replace(GREEDY, temperature=0.7),
    "hot": replace(GREEDY, temperature=1.3),
    "nucleus": replace(GREEDY, temperature=1.0, top_p=0.9),
    "model": replace(GREEDY, temperature=1.0),
}
"""What is always there; the user's own preset of that name takes its place."""

MAX_BYTES = 100_000


class PresetError(ChatappError):
    """A preset that cannot be read, written or found; the message says what to do."""


class Presets:
    """The presets of a folder, and those that are always there."""

    def __init__(self, folder: Path) -> None:
        """The folder need not be there."""
        self._folder = folder

    def names(self) -> list[str]:
        """All names, the user's own last."""
        own = sorted(file.stem for file in self._folder.glob("*.toml"))
        return list(dict.fromkeys([*BUILT_IN, *own]))

    def load(self, name: str) -> SamplingParams:
        file = self._file(name)
        if not file.is_file():
            if (built_in := BUILT_IN.get(name)) is not None:
                return built_in
            raise PresetError(f"there is no preset {name!r}; there are {', '.join(self.names())}")
        try:
            if file.stat().st_size > MAX_BYTES:
                raise PresetError(f"{file} is no preset: it is longer than {MAX_BYTES:,} bytes")
            return parse_preset(file.read_text("utf-8-sig"))
        except ParameterError as error:
            raise PresetError(f"{file}: {error}") from None
        except UnicodeDecodeError:
            raise PresetError(f"{file} is not UTF-8 text") from None
        except OSError as error:
            raise PresetError(f"cannot read {file}: {error.strerror}") from None

    def save(self, name: str, sampling: SamplingParams) -> Path:
        file = self._file(name)
        try:
            write_file(file, table_text(sampling))
        except OSError as error:
            raise PresetError(f"cannot write {file}: {error.strerror}") from None
        return file

    def remove(self, name: str) -> None:
        """Remove one of the user's presets. Raises PresetError."""
        file = self._file(name)
        try:
            file.unlink()
        except FileNotFoundError:
            raise PresetError(f"there is no preset of your own called {name!r}") from None
        except OSError as error:
            raise PresetError(f"cannot remove {file}: {error.strerror}") from None

    def _file(self, name: str) -> Path:
        if not FILE_NAME.fullmatch(name):
            raise PresetError(f"a preset's name is {FILE_NAME_WORDS}, not {name!r}")
        return self._folder / f"{name}.toml"


def parse_preset(source: str) -> SamplingParams:
    try:
        values = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"it is not valid TOML: {error}") from None
    return SamplingParams().with_values(read_table(values))


def with_preset(template: Template, presets: Presets) -> Template:
    """The template with the parameters of the preset it names, beneath its own.

    Raises PresetError: there is no such preset, or its file cannot be used.
    """
    if not template.preset:
        return template
    sampling = presets.load(template.preset)
    whole = {item.name: getattr(sampling, item.name) for item in fields(sampling)}
    return replace(template, sampling=MappingProxyType({**whole, **template.sampling}))
