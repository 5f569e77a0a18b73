"""Runs a Jinja prompt format, which may come from anyone, within bounds.

Chat templates are programs that arrive with models (CVE-2024-34359 and CVE-2026-5760: they ran
without a sandbox). Here they run in Jinja's immutable sandbox, with the helpers and block settings
that transformers gives them, so that they render the same text. Time, the length of what they write
and the growth of strings are bounded: loops and macros look at a clock, operators at sizes. That
stops runaway templates; the engine is a process of its own for whatever gets past it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from chatapp.chat.errors import EngineError
from chatapp.chat.thinking import SWITCHES

MAX_SECONDS = 5.0
"""Real templates take milliseconds, for thousands of turns too."""
MAX_EXTRA_CHARACTERS = 2_000_000
"""How much longer than four times the conversation a rendered prompt may be."""
MAX_WIDTH = 99_999
"""To how many characters text may be padded."""

_WIDE_FIELD = re.compile(r"%[-+ #0]*(\*|\d{5,})|%[^%a-zA-Z]*\.(\*|\d{5,})")


class FormatFailed(EngineError):
    """A format that cannot be read or run; the message says why."""


class FormatRefused(FormatFailed):
    """A format said itself, by raise_exception, that it can't take this conversation."""


@dataclass(frozen=True, slots=True)
class RenderedText:
    """What a format made of a conversation."""

    text: str
    stop: tuple[str, ...] = ()
    """The stop sequences it declares by `{% set stop = [...] %}`."""


@dataclass(slots=True)
class _Budget:
    """What one rendering may still use."""

    deadline: float
    characters: int


_budget: ContextVar[_Budget] = ContextVar("budget")
_told: ContextVar[tuple[float | None, bool | None]] = ContextVar("told", default=(None, None))
"""The moment, and whether to think: see `telling`."""


@contextmanager
def telling(moment: float | None, think: bool | None) -> Iterator[None]:
    """While it lasts, formats are told that time and whether the model is to think.

    `moment`: seconds since the epoch; None is the present. `think`: None leaves it to the format.
    """
    reset = _told.set((moment, think))
    try:
        yield
    finally:
        _told.reset(reset)


class ChatTemplate:
    """A compiled format."""

    def __init__(self, source: str) -> None:
        """Compile it.

        Raises:
            FormatFailed: it is no valid Jinja; the message names the line.
        """
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise FormatFailed(f"line {error.lineno}: {error.message}") from None
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise FormatFailed(f"it cannot be compiled ({type(error).__name__})") from None

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        variables: Mapping[str, str],
        *,
        add_generation_prompt: bool,
    ) -> RenderedText:
        """Write a conversation out.

        Args:
            messages: each with `role` and `content`.
            variables: what else the format may name: bos_token, eos_token, ...
            add_generation_prompt: whether to open the assistant's next turn.

        Raises:
            FormatRefused: the format raised an exception of its own.
            FormatFailed: it failed otherwise, took too long or wrote too much.
        """
        length = sum(len(message["content"]) for message in messages)
        most = MAX_EXTRA_CHARACTERS + 4 * length
        reset = _budget.set(_Budget(time.monotonic() + MAX_SECONDS, most))
        _, think = _told.get()
        try:
            context = self._template.new_context(
                {
                    **variables,
                    **({} if think is None else dict.fromkeys(SWITCHES, think)),
                    "messages": [dict(message) for message in messages],
                    "add_generation_prompt": add_generation_prompt,
                    "tools": None,
                    "documents": None,
                }
            )
            text = "".join(_bounded(self._template.root_render_func(context), most))
            return RenderedText(text, _stop(context.vars.get("stop")))
        except FormatFailed:
            raise
        except (RecursionError, MemoryError):
            raise FormatFailed("it goes too deep or grows too large") from None
        except Exception as error:  # a template can raise anything its operators can
            raise FormatFailed(_words(error)) from None
        finally:
            _budget.reset(reset)


compile_template = functools.lru_cache(maxsize=32)(ChatTemplate)
"""A compiled format, compiled once. Raises FormatFailed."""


def switch_in(source: str) -> str:
    """The variable by which a format has a model think or not; empty where it has none."""
    with contextlib.suppress(jinja2.TemplateError, RecursionError, SyntaxError, ValueError):
        names = meta.find_undeclared_variables(_environment().parse(source))
        return next((name for name in SWITCHES if name in names), "")
    return ""


def _bounded(pieces: Iterator[str], most: int) -> Iterator[str]:
    written = 0
    for piece in pieces:
        written += len(piece)
        if written > most:
            raise FormatFailed(f"it writes more than {most:,} characters")
        _check_time()
        yield piece


def _check_time() -> None:
    if time.monotonic() > _budget.get().deadline:
        raise FormatFailed(f"it runs for more than {MAX_SECONDS:g} seconds")


def _check_length(length: int) -> None:
    most = _budget.get().characters
    if length > most:
        raise FormatFailed(f"it makes a value of more than {most:,} items")


def _stop(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(s, str) and s for s in value):
        raise FormatFailed("its stop must be a list of texts that are not empty")
    return tuple(value)


def _words(error: Exception) -> str:
    words = " ".join(str(error).split()) or "it failed"
    return words if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {words}"


class _Environment(ImmutableSandboxedEnvironment):
    """transformers' sandbox, with bounds on time and size."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def check_time(self) -> str:
        """Called at the start of every loop's and macro's body."""
        _check_time()
        return ""

    def concatenate(self, *values: Any) -> str:
        """The `~` operator."""
        texts = [str(value) for value in values]
        _check_length(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%`, when their result is not too large."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(other, int):
                    _check_length(len(one) * other)
        elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check_length(len(left) + len(right))
        elif operator == "**" and not (abs(left) < 1e6 and abs(right) < 64):
            raise FormatFailed("it takes too large a power")
        elif operator == "%" and isinstance(left, str) and _WIDE_FIELD.search(left):
            raise FormatFailed("it pads text too widely")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Any call; text methods may not pad, repeat or join beyond the bounds."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            for value in args:
                if isinstance(value, int):
                    _check_length(value)
            name = getattr(obj, "__name__", "")
            if name == "replace" and len(args) >= 2:
                _check_length(owner.count(args[0]) * len(args[1]))
            elif name == "join" and args and hasattr(args[0], "__len__"):
                _check_length(len(owner) * len(args[0]))
        return super().call(context, obj, *args, **kwargs)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Bounds().visit(source), *args, **kwargs)


class _Bounds(NodeTransformer):
    """Lets what may run many times look at the clock, and `~` at sizes."""

    def visit_For(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        check = nodes.Output([_call("check_time", [])]).set_lineno(node.lineno)
        node.body.insert(0, check)
        return self.generic_visit(node)

    visit_Macro = visit_CallBlock = visit_For

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return self.generic_visit(_call("concatenate", node.nodes).set_lineno(node.lineno))


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant wrote, for training; here it only stands."""

    tags = {"generation"}  # noqa: RUF012  # jinja reads it off the class

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The block's body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Dict:
    """`dict` in templates, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """As dict.fromkeys."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """`namespace` in templates; names that begin with an underscore are refused."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"{name!r} cannot be stored in a namespace")


def _raise_exception(message: Any) -> NoReturn:
    raise FormatRefused(" ".join(str(message).split()))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' tojson: Jinja's own escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _narrow(pad: Callable[..., str]) -> Callable[..., str]:
    """A filter that pads text, for widths within reason."""

    @functools.wraps(pad)
    def narrow(value: str, *args: Any, **kwargs: Any) -> str:
        for width in (*args, *kwargs.values()):
            if isinstance(width, int) and width > MAX_WIDTH:
                raise FormatFailed("it pads text too widely")
        return pad(value, *args, **kwargs)

    return narrow


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    """The filter `format`, for widths within reason."""
    if _WIDE_FIELD.search(value):
        raise FormatFailed("it pads text too widely")
    return value % (kwargs or args)


def _strftime_now(form: str) -> str:
    seconds, _ = _told.get()
    now = datetime.now() if seconds is None else datetime.fromtimestamp(seconds)
    return now.strftime(form)


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.filters["format"] = _format
    for name in ("center", "indent"):
        environment.filters[name] = _narrow(environment.filters[name])
    environment.globals.pop("lipsum")  # writes filler text of any length
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
        dict=_Dict(),
        namespace=_Namespace,
    )
    return environment
