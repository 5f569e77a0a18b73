"""System-prompt templates: a system text with the settings that go with it.

A template is a TOML text with `name` (else its file's name), `description`, `system`, `format`,
`first_message`, `preset`, a list `stop` and a table `[sampling]`, which may hold all that a preset
can and stands over the preset that is named. This module only reads and writes such a text; where
the files are is `chatapp.settings.library`'s business.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import (
    ParameterError,
    SamplingParams,
    read_table,
    table_text,
    toml_string,
)

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class TemplateError(ChatappError, ValueError):
    """A template file that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Template:
    """A system text, the format it is made for, and the sampling values it wants."""

    name: str
    description: str = ""
    system: str = ""
    format: str = "auto"
    first_message: str = ""
    """What the assistant says before the user does; empty for nothing."""
    sampling: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """By the names of `SamplingParams`; each within its bounds."""
    stop: tuple[str, ...] = ()
    preset: str = ""
    """The preset beneath `sampling`; empty for none."""


NO_TEMPLATE = Template("none", "No system text of ours: only the model's own format")

_TEXTS = ("name", "description", "system", "format", "first_message", "preset")


def parse_template(file_name: str, source: str) -> Template:
    """Read a template from TOML. Raises TemplateError."""
    try:
        values = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"not valid TOML: {error}") from None
    known = {*_TEXTS, "sampling", "stop"}
    if unknown := sorted(set(values) - known):
        raise TemplateError(f"unknown field {unknown[0]!r}; there are {', '.join(sorted(known))}")
    texts = {key: _text(key, values[key]) for key in _TEXTS if key in values}
    name = texts.pop("name", "") or file_name
    if name == NO_TEMPLATE.name or not name.isprintable():
        raise TemplateError(f"a template cannot be called {name!r}")
    if texts.get("format") == "":
        raise TemplateError("format must not be empty; leave it out for the model's own")
    return Template(
        name=name,
        sampling=_sampling(values.get("sampling", {})),
        stop=_stop(values.get("stop", [])),
        **texts,
    )


def template_text(template: Template, sampling: SamplingParams) -> str:
    """A template as TOML, with all of these parameters, so that no setting shines through.

    `template`: its texts and stop sequences; `sampling` and `preset` of it are not written.
    `sampling`: what its chats are to be drawn with.
    """
    texts = [(key, getattr(template, key)) for key in _TEXTS if key != "preset"]
    lines = [f"{key} = {toml_string(text)}" for key, text in texts if text]
    if template.stop:
        lines.append(f"stop = [{', '.join(map(toml_string, template.stop))}]")
    return "\n".join([*lines, "", "[sampling]", table_text(sampling, whole=True)])


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TemplateError(f"{key} must be a text, not {value!r}")
    return value.strip() if key != "system" else value.strip("\n")


def _sampling(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TemplateError("sampling must be a table, begun by a line [sampling]")
    try:
        return MappingProxyType(read_table(value))
    except ParameterError as error:
        raise TemplateError(str(error)) from None


def _stop(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise TemplateError("stop must be a list of texts that are not empty")
    return tuple(value)
