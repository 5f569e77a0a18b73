"""The numbers a user turns, with their bounds.

One table, `PARAMETERS`, is read off the fields of `SamplingParams`. The command line, the slash
commands, the configuration file, the templates and the sliders all take their names, bounds and
error messages from it, so that a value refused in one place is refused in every other, in the
same words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

from chatapp.chat.errors import ChatappError

EndRule = Literal["allow", "forbid", "force"]
"""What may become of the end of a reply: left to the model, forbidden, or forced now."""

EDITS = ("bias", "repetition", "presence", "frequency", "dry", "no_repeat_ngram", "min_tokens")
"""Stages that change logits before any temperature; they always run first, in this order."""

TRANSFORMERS_ORDER = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical",
    "top_n_sigma",
    "xtc",
    "mirostat",
)
"""transformers' order, so that one can be checked against the other: temperature first."""

LLAMA_CPP_ORDER = (
    "top_n_sigma",
    "top_k",
    "typical",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
    "mirostat",
)
"""llama.cpp's default order (common/common.h): temperature last."""

ORDERS: Mapping[str, tuple[str, ...]] = {
    "transformers": TRANSFORMERS_ORDER,
    "llama.cpp": LLAMA_CPP_ORDER,
}


MOST = 2**31 - 1
"""The largest whole number that any setting takes."""

MOST_SEED = 2**63 - 1


class ParameterError(ChatappError, ValueError):
    """A sampling value that cannot be used; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number a user can turn: what it is called, what it may be, when it does nothing."""

    name: str
    label: str
    low: float
    high: float
    step: float
    """By how much one key press changes it."""
    default: float
    off: float | None
    """The value at which the stage does nothing; None where there is no such value."""
    integer: bool
    text: str
    """One sentence for help."""

    def parse(self, text: str) -> float | int:
        """Read a value a user typed. Raises ParameterError."""
        try:
            value = int(text) if self.integer else float(text)
        except ValueError:
            raise self._wrong(text, self.range_text()) from None
        return self.check(value)

    def check(self, value: Any) -> float | int:
        """Return the value when it is within the bounds. Raises ParameterError."""
        # A NaN is never within, and infinity is none that can be made whole.
        if not (_is_number(value) and self.low <= value <= self.high) or (
            self.integer and value != int(value)
        ):
            huge = isinstance(value, int) and value > self.high == MOST
            raise self._wrong(value, f"of at most {MOST}" if huge else self.range_text())
        return int(value) if self.integer else float(value)

    def _wrong(self, value: object, bounds: str) -> ParameterError:
        kind = "a whole number" if self.integer else "a number"
        return ParameterError(f"{self.name} must be {kind} {bounds}, not {value!r}")

    def range_text(self) -> str:
        """The bounds in words, for messages: "between 0 and 5" or "of at least 0"."""
        if self.high == MOST:
            return f"of at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"

    def clamp(self, value: float) -> float | int:
        """The nearest value within the bounds, free of the dust that repeated steps leave."""
        value = round(min(max(value, self.low), self.high), 6)
        return int(value) if self.integer else value

    def format(self, value: float) -> str:
        return str(int(value)) if self.integer else f"{value:.2f}"


def _parameter(
    label: str,
    default: float,
    low: float,
    high: float,
    step: float,
    text: str,
    off: float | None = None,
) -> Any:
    """A dataclass field that carries its own bounds."""
    bounds = {"label": label, "low": low, "high": high, "step": step, "text": text, "off": off}
    return field(default=default, metadata=bounds)


_ANY = MOST


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Every number that shapes a draw; an immutable value, read once at the top of every step.

    What each one does, exactly, stands with its function in `chatapp.engine.sampler`. Raises
    ParameterError: a value or a token's id is outside its bounds, or the order is not a
    permutation.
    """

    temperature: float = _parameter(
        "temperature", 0.7, 0, 5, 0.05, "Low: predictable. High: varied. 0: always the top token."
    )
    top_k: int = _parameter(
        "top-k", 50, 0, _ANY, 1, "Keep the k most probable tokens; 0 is off.", off=0
    )
    top_p: float = _parameter(
        "top-p", 0.95, 0, 1, 0.01, "Keep the smallest set with this probability; 1 is off.", off=1
    )
    min_p: float = _parameter(
        "min-p",
        0.05,
        0,
        1,
        0.01,
        "Drop tokens below this fraction of the best one's probability; 0 is off.",
        off=0,
    )
    repetition_penalty: float = _parameter(
        "repetition", 1.0, 0.1, 5, 0.05, "Divides the logits of tokens already there.", off=1
    )
    presence_penalty: float = _parameter(
        "presence", 0.0, -5, 5, 0.1, "Subtracted from tokens already there.", off=0
    )
    frequency_penalty: float = _parameter(
        "frequency", 0.0, -5, 5, 0.1, "Subtracted once for each time a token is there.", off=0
    )
    penalty_window: int = _parameter(
        "window", 0, 0, _ANY, 16, "How many last tokens penalties look at; 0 is all of them."
    )
    dry_multiplier: float = _parameter(
        "DRY", 0.0, 0, 10, 0.1, "Strength of the penalty on repeated sequences; 0 is off.", off=0
    )
    dry_base: float = _parameter(
        "DRY base", 1.75, 1, 8, 0.05, "Grows the DRY penalty with the length of the repeat."
    )
    dry_allowed_length: int = _parameter(
        "DRY length", 2, 0, _ANY, 1, "Repeats up to this length are free."
    )
    no_repeat_ngram: int = _parameter(
        "no-repeat", 0, 0, _ANY, 1, "Ban tokens that would repeat an n-gram; 0 is off.", off=0
    )
    dynatemp_range: float = _parameter(
        "dyn. range", 0.0, 0, 5, 0.05, "Temperature ± this, by entropy; 0 is off.", off=0
    )
    dynatemp_exponent: float = _parameter(
        "dyn. exponent", 1.0, 0, 10, 0.1, "How sharply entropy moves the dynamic temperature."
    )
    typical_p: float = _parameter(
        "typical", 1.0, 0, 1, 0.01, "Keep the most typical set with this mass; 1 is off.", off=1
    )
    top_n_sigma: float = _parameter(
        "top-nσ", 0.0, 0, 10, 0.1, "Keep logits within n standard deviations; 0 is off.", off=0
    )
    xtc_probability: float = _parameter(
        "XTC chance", 0.0, 0, 1, 0.05, "The chance that the top choices are dropped.", off=0
    )
    xtc_threshold: float = _parameter(
        "XTC threshold", 0.1, 0, 1, 0.01, "How probable a top choice must be to be dropped."
    )
    mirostat_tau: float = _parameter(
        "mirostat τ", 0.0, 0, 20, 0.1, "Surprise to steer to, in bits; 0 is off.", off=0
    )
    mirostat_eta: float = _parameter(
        "mirostat η", 0.1, 0, 1, 0.01, "How fast mirostat follows its own error."
    )
    min_tokens: int = _parameter(
        "min tokens", 0, 0, _ANY, 1, "The reply cannot end before this many tokens.", off=0
    )
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of token id and what is added to its logit."""
    banned: tuple[int, ...] = ()
    """Token ids that are never taken."""
    end: EndRule = "allow"
    grammar: str = ""
    """What replies are held to: "json:" with a JSON schema, "regex:" with a regular expression or
    "lark:" with a grammar in llguidance's form of Lark behind it; empty for nothing."""
    order: tuple[str, ...] = TRANSFORMERS_ORDER
    """The stages from temperature on, in the order they run."""

    def __post_init__(self) -> None:
        for parameter in PARAMETERS.values():
            value = parameter.check(getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)
        if self.grammar and str(self.grammar).partition(":")[0] not in GRAMMARS:
            raise ParameterError(f"a grammar begins with one of {', '.join(GRAMMARS)} and a colon")
        if self.end not in ("allow", "forbid", "force"):
            raise ParameterError(f"end must be allow, forbid or force, not {self.end!r}")
        if sorted(self.order) != sorted(TRANSFORMERS_ORDER):
            raise ParameterError(
                f"order must name each of {', '.join(TRANSFORMERS_ORDER)} once, not {self.order}"
            )
        for token in self.banned:
            _check_token(token)
        for token, bias in self.logit_bias:
            _check_token(token)
            if math.isnan(bias):
                raise ParameterError("a logit bias must be a number")

    def with_text(self, name: str, text: str) -> SamplingParams:
        """A copy with one number replaced by what a user typed. Raises ParameterError."""
        return self.with_values({name: find(name).parse(text)})

    def stepped(self, name: str, steps: int) -> SamplingParams:
        """A copy with one number moved by whole steps, kept within its bounds."""
        parameter = find(name)
        value = parameter.clamp(getattr(self, parameter.name) + steps * parameter.step)
        return self.with_values({parameter.name: value})

    def with_values(self, values: Mapping[str, Any]) -> SamplingParams:
        """A copy with several values replaced, as a template or the configuration gives them.

        Raises ParameterError: an unknown name or a value out of bounds.
        """
        own = {item.name for item in fields(self)}
        named: dict[str, Any] = {
            name if name in own else find(name).name: one for name, one in values.items()
        }
        return replace(self, **named)


GRAMMARS = ("json", "regex", "lark")
"""The ways to say what a reply is held to."""


def _check_token(token: object) -> None:
    if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token <= MOST:
        raise ParameterError(
            f"a token's id must be a whole number between 0 and {MOST}, not {str(token)[:40]}"
        )


def _read_table() -> dict[str, Parameter]:
    return {
        item.name: Parameter(
            name=item.name,
            default=cast(float, item.default),
            integer=item.type == "int",
            **item.metadata,
        )
        for item in fields(SamplingParams)
        if item.metadata
    }


PARAMETERS: Mapping[str, Parameter] = _read_table()
"""Every number of `SamplingParams` by name, in the order of the fields."""


def find(name: str) -> Parameter:
    """The parameter of that name; dashes and underscores are the same. Raises ParameterError."""
    key = name.strip().lower().replace("-", "_")
    key = {"temp": "temperature", "n_sigma": "top_n_sigma"}.get(key, key)
    if key not in PARAMETERS:
        raise ParameterError(f"no setting is called {name!r}; there are {', '.join(PARAMETERS)}")
    return PARAMETERS[key]


def read_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a table of TOML gives, by the names of `SamplingParams`, each checked.

    Raises ParameterError: an unknown name, or a value of another type or out of bounds.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        match key:
            case "order":
                values[key] = _order(value)
            case "banned":
                values[key] = tuple(_list(key, value))
            case "logit_bias":
                values[key] = _biases(value)
            case "end" | "grammar":
                values[key] = value
            case _:
                values[find(key).name] = value
    checked = SamplingParams().with_values(values)
    return {name: getattr(checked, name) for name in values}


def table_text(sampling: SamplingParams, *, whole: bool = False) -> str:
    """Parameters as the lines of a table of TOML. `whole`: also those that have their default.

    A preset leaves out what has its default; a template also what it leaves to the user.
    """
    names = [name for name, order in ORDERS.items() if order == sampling.order]
    stages = ", ".join(f'"{stage}"' for stage in sampling.order)
    pairs = ", ".join(f"[{token}, {bias!r}]" for token, bias in sampling.logit_bias)
    texts = {name: repr(getattr(sampling, name)) for name in PARAMETERS} | {
        "order": f'"{names[0]}"' if names else f"[{stages}]",
        "end": f'"{sampling.end}"',
        "grammar": toml_string(sampling.grammar),
        "banned": f"{list(sampling.banned)}  # ids of one model's tokens",
        "logit_bias": f"[{pairs}]  # id and bias",
    }
    plain = SamplingParams()
    told = [name for name in texts if whole or getattr(sampling, name) != getattr(plain, name)]
    return "".join(f"{name} = {texts[name]}\n" for name in told)


def toml_string(text: str) -> str:
    """A basic string of TOML: JSON's, but that DEL has to be escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _order(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        if value not in ORDERS:
            raise ParameterError(f"order must be {' or '.join(ORDERS)} or a list of stages")
        return ORDERS[value]
    if isinstance(value, list) and all(isinstance(stage, str) for stage in value):
        return tuple(value)
    raise ParameterError("order must be a name or a list of stages")


def _biases(value: object) -> tuple[tuple[int, float], ...]:
    pairs = [_list("logit_bias", pair) for pair in _list("logit_bias", value)]
    if any(len(pair) != 2 or not _is_number(pair[1]) for pair in pairs):
        raise ParameterError("logit_bias must be a list of pairs of a token's id and a number")
    return tuple((token, float(bias)) for token, bias in pairs)


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ParameterError(f"{key} must be a list, not {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
