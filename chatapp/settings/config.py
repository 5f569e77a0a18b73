"""Settings: what the user chose, and where each choice came from.

Precedence, the strongest first: a flag of the command line, the environment (CHATAPP_<SETTING>),
the file config.toml, the default. The sampling values of a template stand between the file and
the environment: choosing the template "strict" means its temperature, whatever the file says,
but `--temperature` on the command line means that one.

The file looks like this; every line may be left out:

    model = "smollm2-135m"
    template = "tutor"
    theme = "nord"

    [sampling]
    temperature = 0.6

    [keys]
    stop = "ctrl+x"

    [servers.big]
    url = "http://gpu.lan:8000/v1#Qwen/Qwen3-32B"
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chatapp.chat.errors import ChatappError, ModelError
from chatapp.chat.facts import RUNTIMES, LoadOptions, ModelSource
from chatapp.chat.sampling import MOST, MOST_SEED, PARAMETERS, ParameterError, SamplingParams, find
from chatapp.chat.template import Template
from chatapp.chat.thinking import THINK
from chatapp.settings.paths import Paths, write_file
from chatapp.settings.servers import read_server

SCALES = ("probability", "surprisal", "entropy", "rank", "p_end")
DTYPES = ("auto", "float32", "bfloat16", "float16")
PREFIX = "CHATAPP_"

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ConfigError(ChatappError, ValueError):
    """A setting that cannot be used; the message names where it stands and what is allowed."""


class _Refused(Exception):
    """What a value must be, in words."""


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise _Refused("a text")


def _one_of(*allowed: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise _Refused(f"one of {', '.join(allowed)}")

    return read


def _device(value: object) -> str:
    if isinstance(value, str):
        kind, _, number = value.partition(":")
        numbered = kind == "cuda" and number.isascii() and number.isdecimal()
        if value in ("auto", "cpu", "cuda", "mps") or numbered:
            return value
    raise _Refused("one of auto, cpu, cuda, cuda:N, mps")


def _whole(value: object, most: int = MOST) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = -1
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    huge = isinstance(value, int) and value > most
    raise _Refused(f"a whole number of at {f'most {most}' if huge else 'least 0'}")


def _seed(value: object) -> int | None:
    return None if value in (None, "") else _whole(value, MOST_SEED)


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().lower()) in _YES + _NO:
        return word in _YES
    raise _Refused("true or false")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    raise _Refused("a list of texts that are not empty")


def _setting(default: Any, read: Callable[[object], Any]) -> Any:
    """A field that knows how its value is read, from a file, a variable or a flag."""
    return field(default=default, metadata={"read": read})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the user can choose outside of a conversation."""

    model: str = _setting("", _text)
    """A catalog id, Hub repo id, folder, .gguf file or server; empty for the default model."""
    template: str = _setting("assistant", _text)
    """The system-prompt template of new chats."""
    format: str = _setting("", _text)
    """The prompt format of new chats; empty for the template's own."""
    think: str = _setting("auto", _one_of(*THINK))
    """Whether models that can do either think before they answer, in new chats; auto, on or off."""
    theme: str = _setting("", _text)
    """One of Textual's themes; empty for its default."""
    scale: str = _setting("probability", _one_of(*SCALES))
    """What the tokens view colours by."""
    panel: str = _setting("brief", _one_of("brief", "full"))
    """What the side panel shows of a token: a share and a sentence, or every number."""
    vim: bool = _setting(False, _truth)
    """Vim's keys where the user writes, and h j k l in the transcript and lists."""
    titles: str = _setting("words", _one_of("words", "model"))
    """What titles a chat: its first words, or also the model while it is idle.

    Words by default, for the default model's sake: of ten chats SmolLM2-135M gave two a good title
    and two a wrong one, and the rest kept their first words. A larger model is worth asking.
    """
    runtime: str = _setting("auto", _one_of(*RUNTIMES))
    device: str = _setting("auto", _device)
    dtype: str = _setting("auto", _one_of(*DTYPES))
    threads: int = _setting(0, _whole)
    context_length: int = _setting(0, _whole)
    kept_megabytes: int = _setting(0, _whole)
    """Room on the disk for the KV caches of long chats, so that one resumed another day is not read
    anew; some 25 MB for 1,000 tokens of the default model. 0 keeps none."""
    model_folders: tuple[str, ...] = _setting((), _texts)
    """Folders whose models are listed, besides the Hub's cache, LM Studio's and Ollama's."""
    offline: bool = _setting(False, _truth)
    """Never touch the network."""
    max_tokens: int = _setting(0, _whole)
    """The longest reply; 0 is as much as the context has room for."""
    stop: tuple[str, ...] = _setting((), _texts)
    """Texts a reply ends before, besides the template's."""
    top_logprobs: int = _setting(20, _whole)
    """How many candidates are recorded for each token."""
    score_prompt_tokens: int = _setting(1024, _whole)
    """How many tokens of messages and system text are scored unasked after a reply, at most; 0
    scores nothing unasked. /score on scores all of them."""
    seed: int | None = _setting(None, _seed)
    """Fixes the draws of every reply; None takes a fresh seed for each."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """The numbers of the file over the defaults; see `sampling_for`."""
    sampling_given: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    """Those given by environment and flags: they hold over a template's."""
    keys: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Other keys for actions: the action's id to its keys, several with commas between."""
    servers: Mapping[str, ModelSource] = field(default_factory=lambda: _NOTHING)
    """By the name that means them, as a model's does."""

    def sampling_for(self, template: Template) -> SamplingParams:
        return self.sampling.with_values({**template.sampling, **self.sampling_given})

    @property
    def load_options(self) -> LoadOptions:
        """How the model is to be loaded: the settings of the same names."""
        names = (item.name for item in fields(LoadOptions))
        return LoadOptions(**{name: getattr(self, name) for name in names})


_READERS: Mapping[str, Callable[[object], Any]] = {
    item.name: item.metadata["read"] for item in fields(Settings) if item.metadata
}


def load_settings(
    paths: Paths, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Settings:
    """Read all settings.

    Raises ConfigError: the file cannot be read or a value cannot be used, wherever it comes from.

    Args:
        paths: where config.toml is; it need not be there.
        environ: the environment. HF_HUB_OFFLINE counts as CHATAPP_OFFLINE.
        flags: what was given on the command line, by the setting's name. None is not given;
            names that are no settings are passed over.
    """
    settings = _from_file(paths.config_file)
    if environ.get("HF_HUB_OFFLINE", "").strip().lower() in _YES:
        settings = replace(settings, offline=True)
    given = {
        name: value
        for name in (*_READERS, *PARAMETERS)
        if (value := environ.get(PREFIX + name.upper()))  # an empty one is as good as none
    }
    settings = _over(settings, given, lambda name: PREFIX + name.upper())
    return with_flags(settings, flags)


def with_flags(settings: Settings, flags: Mapping[str, object]) -> Settings:
    """The settings with those of the command line over them; see `load_settings` for both.

    Raises ConfigError: a flag's value cannot be used.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    return _over(settings, given, lambda name: "--" + name.replace("_", "-"))


def save_setting(paths: Paths, key: str, value: object) -> None:
    """Change one setting in the user's file, and nothing else in it: comments stay.

    Raises ConfigError: no such setting, no such value, or the file cannot be read or written.

    Args:
        paths: where config.toml is; it is made when it isn't there.
        key: the setting's name, a sampling parameter's name, or `keys.ACTION`.
        value: its new value; None removes the line.
    """
    import tomlkit  # only here: reading needs the standard library alone

    file = paths.config_file
    _from_file(file)  # a file with a mistake in it is not written over
    table, name = _place(key)
    if value is not None:
        value = _checked(file, table, name, value)
    document = tomlkit.parse(_source(file) or "")
    holder: Any = document
    if table:
        if table not in document and value is not None:
            document[table] = tomlkit.table()
        holder = document.get(table, {})
    if value is None:
        holder.pop(name, None)
    else:
        holder[name] = list(value) if isinstance(value, tuple) else value
    try:
        write_file(file, tomlkit.dumps(document))
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None


def _place(key: str) -> tuple[str, str]:
    table, _, name = key.rpartition(".")
    if table == "keys" and name:
        return table, name
    bare = name.replace("-", "_")
    if table in ("", "sampling") and bare in PARAMETERS:
        return "sampling", bare
    if not table and bare in _READERS:
        return "", bare
    raise ConfigError(_unknown(key, (*_READERS, *PARAMETERS)))


def _checked(file: Path, table: str, name: str, value: object) -> Any:
    """A value for that key of the file. Raises ConfigError."""
    if table == "sampling":
        return _number(f"{file}: [sampling]", name, value)
    if table == "keys":
        return _value(f"{file}: [keys] {name}", _text, value)
    return _value(f"{file}: {name}", _READERS[name], value)


def _from_file(file: Path) -> Settings:
    source = _source(file)
    if source is None:
        return Settings()
    try:
        values = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    tables = {}
    for table in ("sampling", "keys", "servers"):
        tables[table] = values.pop(table, {})
        if not isinstance(tables[table], dict):
            raise ConfigError(f"{file}: {table} must be a table, begun by a line [{table}]")
    for name in values:
        if name not in _READERS:
            misplaced = name.replace("-", "_") in PARAMETERS
            hint = "it belongs under [sampling]" if misplaced else ""
            raise ConfigError(f"{file}: {_unknown(name, (*_READERS, *tables), hint)}")
    plain = {name: _checked(file, "", name, value) for name, value in values.items()}
    keys = {name: _checked(file, "keys", name, value) for name, value in tables["keys"].items()}
    servers = {}
    for name, value in tables["servers"].items():
        try:
            servers[name] = read_server(value)
        except ModelError as error:
            raise ConfigError(f"{file}: [servers.{name}] {error}") from None
    numbers = {}
    for name, value in tables["sampling"].items():
        if name.replace("-", "_") not in PARAMETERS:
            raise ConfigError(f"{file}: [sampling]: {_unknown(name, tuple(PARAMETERS))}")
        numbers[find(name).name] = _checked(file, "sampling", name, value)
    return Settings(
        **plain,
        sampling=SamplingParams().with_values(numbers),
        keys=MappingProxyType(keys),
        servers=MappingProxyType(servers),
    )


def _over(settings: Settings, given: Mapping[str, object], where: Callable[[str], str]) -> Settings:
    """The settings with other values put over them; `where` names a value's origin."""
    plain = {
        name: _value(where(name), _READERS[name], value)
        for name, value in given.items()
        if name in _READERS
    }
    numbers = {
        name: _number(where(name), name, value)
        for name, value in given.items()
        if name in PARAMETERS
    }
    together = MappingProxyType({**settings.sampling_given, **numbers})
    return replace(settings, **plain, sampling_given=together)


def _value(where: str, read: Callable[[object], Any], value: object) -> Any:
    try:
        return read(value)
    except _Refused as refused:
        raise ConfigError(f"{where} must be {refused}, not {value!r}") from None


def _number(where: str, name: str, value: object) -> float | int:
    """A sampling value, of a file as a number and of the environment as text."""
    parameter = find(name)
    try:
        return parameter.parse(value) if isinstance(value, str) else parameter.check(value)
    except ParameterError as error:
        raise ConfigError(f"{where}: {error}") from None


def _unknown(name: str, names: tuple[str, ...], hint: str = "") -> str:
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    near_hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    return f"no setting is called {name!r}; {hint or near_hint}"


def _source(file: Path) -> str | None:
    """The text of the file; None where there is none."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text; save it as UTF-8 or remove it") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
