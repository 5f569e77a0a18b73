"""Named presets: all sampling parameters under a name, each in a small TOML file of the person's.

Only what differs from the defaults is written, so that a preset stays readable and a parameter of a
later version takes its own default.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import ORDERS, PARAMETERS, ParameterError, SamplingParams
from chatapp.paths import make_folder

GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)

BUILT_IN: Mapping[str, SamplingParams] = {
    "default": SamplingParams(),
    "greedy": GREEDY,
    "cool": replace(GREEDY, temperature=0.7),
    "hot": replace(GREEDY, temperature=1.3),
    "nucleus": replace(GREEDY, temperature=1.0, top_p=0.9),
    "model": replace(GREEDY, temperature=1.0),
}
"""What is always there; a person's own preset of that name takes its place."""

_NAME = re.compile(r"[\w][\w .-]{0,39}")
_OTHER_KEYS = ("order", "end", "banned", "logit_bias")
MAX_BYTES = 100_000


class PresetError(ChatappError):
    """A preset that cannot be read, written or found; the message says what to do."""


class Presets:
    """The presets of a folder, and those that are always there."""

    def __init__(self, folder: Path) -> None:
        """The folder need not be there."""
        self._folder = folder

    def names(self) -> list[str]:
        """All names, the person's own last."""
        own = sorted(file.stem for file in self._folder.glob("*.toml"))
        return list(dict.fromkeys([*BUILT_IN, *own]))

    def load(self, name: str) -> SamplingParams:
        """The parameters of that name.

        Raises:
            PresetError: there is none, or its file cannot be used.
        """
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
        """Write a preset, in place of the one of that name. Raises PresetError."""
        file = self._file(name)
        make_folder(self._folder)
        try:
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".new")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(preset_text(sampling))
            os.replace(temporary, file)
        except OSError as error:
            raise PresetError(f"cannot write {file}: {error.strerror}") from None
        return file

    def remove(self, name: str) -> None:
        """Remove one of the person's presets. Raises PresetError."""
        file = self._file(name)
        try:
            file.unlink()
        except FileNotFoundError:
            raise PresetError(f"there is no preset of your own called {name!r}") from None
        except OSError as error:
            raise PresetError(f"cannot remove {file}: {error.strerror}") from None

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise PresetError(
                f"a preset's name is up to 40 letters, digits, blanks, dots, dashes, not {name!r}"
            )
        return self._folder / f"{name}.toml"


def preset_text(sampling: SamplingParams) -> str:
    """Parameters as TOML, without those that have their default."""
    lines = [
        f"{name} = {getattr(sampling, name)!r}"
        for name, parameter in PARAMETERS.items()
        if getattr(sampling, name) != parameter.default
    ]
    plain = SamplingParams()
    if sampling.order != plain.order:
        names = [name for name, order in ORDERS.items() if order == sampling.order]
        stages = ", ".join(f'"{stage}"' for stage in sampling.order)
        lines.append(f'order = "{names[0]}"' if names else f"order = [{stages}]")
    if sampling.end != plain.end:
        lines.append(f'end = "{sampling.end}"')
    if sampling.banned:
        lines.append(f"banned = {list(sampling.banned)}  # ids of one model's tokens")
    if sampling.logit_bias:
        pairs = ", ".join(f"[{token}, {bias!r}]" for token, bias in sampling.logit_bias)
        lines.append(f"logit_bias = [{pairs}]  # id and bias")
    return "\n".join([*lines, ""])


def parse_preset(source: str) -> SamplingParams:
    """Parameters out of TOML. Raises ParameterError."""
    try:
        values = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"it is not valid TOML: {error}") from None
    others: dict[str, Any] = {key: values.pop(key) for key in _OTHER_KEYS if key in values}
    sampling = SamplingParams().with_values(values)
    if "order" in others:
        order = others["order"]
        if isinstance(order, str):
            if order not in ORDERS:
                raise ParameterError(f"order must be {' or '.join(ORDERS)} or a list of stages")
            others["order"] = ORDERS[order]
        elif isinstance(order, list) and all(isinstance(stage, str) for stage in order):
            others["order"] = tuple(order)
        else:
            raise ParameterError("order must be a name or a list of stages")
    if "banned" in others:
        others["banned"] = tuple(_id(token) for token in _list("banned", others["banned"]))
    if "logit_bias" in others:
        pairs = [_list("logit_bias", pair) for pair in _list("logit_bias", others["logit_bias"])]
        if any(len(pair) != 2 or not isinstance(pair[1], int | float) for pair in pairs):
            raise ParameterError("logit_bias must be a list of pairs of a token's id and a number")
        others["logit_bias"] = tuple((_id(token), float(bias)) for token, bias in pairs)
    return replace(sampling, **others)


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ParameterError(f"{key} must be a list, not {value!r}")
    return value


def _id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ParameterError(f"a token's id must be a whole number of at least 0, not {value!r}")
    return value
