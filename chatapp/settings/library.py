"""Finds system-prompt templates and prompt formats: those that ship, and the user's own.

A file of the user's takes the place of one of ours that has its name, and adds to them
otherwise. A file that cannot be used is left out and named with its reason; it stops nothing.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from chatapp.chat.prompt import PromptFormat
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import (
    NO_TEMPLATE,
    Template,
    TemplateError,
    parse_template,
    template_text,
)
from chatapp.settings.paths import FILE_NAME, FILE_NAME_WORDS, Paths, assets, write_file

_T = TypeVar("_T")

FALLBACK_FORMAT = "transcript"
"""What `auto` uses for a model without a chat template."""
MAX_BYTES = 1_000_000
"""A longer file is no template."""


@dataclass(frozen=True, slots=True)
class Found(Generic[_T]):
    """The system-prompt templates, or the prompt formats, that there are."""

    kind: str
    by_name: Mapping[str, _T]
    """Ours first, then the user's own."""
    problems: tuple[str, ...]
    """The files that were left out, each with its reason, in one line."""
    besides: Mapping[str, _T]
    """What can be named, too."""

    def named(self, name: str) -> _T:
        """Raises TemplateError: there is none; the message names those that are near."""
        there = {**self.by_name, **self.besides}
        if name not in there:
            near = difflib.get_close_matches(name, there, n=2, cutoff=0.7)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            words = f"no {self.kind} is called {name!r}; {hint}there are {', '.join(there)}"
            raise TemplateError(words)
        return there[name]


Templates = Found[Template]
Formats = Found[PromptFormat]


def load_templates(paths: Paths) -> Templates:
    found: dict[str, Template] = {}
    problems: list[str] = []
    for file, source in _read((assets() / "templates", paths.templates), "*.toml", problems):
        try:
            template = parse_template(file.stem, source)
        except TemplateError as error:
            problems.append(_left_out(file, str(error)))
            continue
        found[template.name] = template
    return Found("template", found, tuple(problems), {NO_TEMPLATE.name: NO_TEMPLATE})


def save_template(paths: Paths, template: Template, sampling: SamplingParams) -> Path:
    """Write one of the user's templates, in place of the one of that name.

    `template`: its texts; see `template_text`. `sampling`: what its chats are to be drawn with.
    Raises TemplateError: the name is none for a file, its file holds a template of another name, or
    it cannot be written.
    """
    if not FILE_NAME.fullmatch(template.name) or template.name == NO_TEMPLATE.name:
        raise TemplateError(f"a template's name is {FILE_NAME_WORDS}, not {template.name!r}")
    names = _own_names(paths)
    named = (file for file, name in names.items() if name == template.name)
    file = next(named, paths.templates / f"{template.name}.toml")
    if names.get(file, template.name) != template.name:
        raise TemplateError(f"{file} holds the template {names[file]!r}; give another name")
    try:
        write_file(file, template_text(template, sampling))
    except UnicodeEncodeError:
        raise TemplateError(f"cannot write {file}: its text is not Unicode") from None
    except OSError as error:
        raise TemplateError(f"cannot write {file}: {error.strerror}") from None
    return file


def _own_names(paths: Paths) -> Mapping[Path, str]:
    """By file, what the user's own templates are called: a file may say another name."""
    names: dict[Path, str] = {}
    for file, source in _read((paths.templates,), "*.toml", []):
        with contextlib.suppress(TemplateError):
            names[file] = parse_template(file.stem, source).name
    return names


def load_formats(paths: Paths) -> Formats:
    """Read all formats, ours and the user's. Whether one runs is seen when it is used."""
    sources: dict[str, str] = {}
    problems: list[str] = []
    for file, source in _read((assets() / "formats", paths.formats), "*.jinja", problems):
        if file.stem in ("auto", "model"):
            problems.append(_left_out(file, f"the name {file.stem} is taken by the model's own"))
        else:
            sources[file.stem] = source
    found = {
        "auto": PromptFormat("auto", sources.get(FALLBACK_FORMAT, "")),
        "model": PromptFormat("model"),
    }
    found |= {name: PromptFormat(name, source) for name, source in sources.items()}
    return Found("format", found, tuple(problems), {})


def _read(folders: Iterable[Path], pattern: str, problems: list[str]) -> Iterator[tuple[Path, str]]:
    """The texts of all files, by name within a folder; what can't be read becomes a problem."""
    for folder in folders:
        try:
            files = sorted(folder.glob(pattern)) if folder.is_dir() else []
        except OSError as error:
            problems.append(_left_out(folder, _reason(error)))
            continue
        for file in files:
            try:
                with file.open("rb") as stream:
                    data = stream.read(MAX_BYTES + 1)
                text = data.decode("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(_left_out(file, _reason(error)))
                continue
            if len(data) > MAX_BYTES:
                problems.append(_left_out(file, f"it is longer than {MAX_BYTES:,} bytes"))
            else:
                yield file, text.replace("\r\n", "\n")


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror)


def _left_out(file: Path, reason: str) -> str:
    return f"{file} is left out: {reason}"
