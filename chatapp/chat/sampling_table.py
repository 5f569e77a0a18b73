"""Sampling parameters as a table of TOML: written and read one way for presets and templates.

A preset holds all parameters, so what it leaves out has its default. A template holds those it
wants, and leaves the others to the user's settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chatapp.chat.sampling import ORDERS, PARAMETERS, ParameterError, SamplingParams, find


def read_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a table gives, by the names of `SamplingParams`, each checked.

    Raises ParameterError: an unknown name, or a value of another type or out of bounds.
    """
    values = {
        key if key in _RULES else find(key).name: _RULES[key](value) if key in _RULES else value
        for key, value in table.items()
    }
    checked = SamplingParams().with_values(values)
    return {name: getattr(checked, name) for name in values}


def table_text(sampling: SamplingParams, *, whole: bool = False) -> str:
    """Parameters as the lines of a table. `whole`: also those that have their default."""
    plain = SamplingParams()

    def told(name: str) -> bool:
        return whole or getattr(sampling, name) != getattr(plain, name)

    lines = [f"{name} = {getattr(sampling, name)!r}" for name in PARAMETERS if told(name)]
    if told("order"):
        names = [name for name, order in ORDERS.items() if order == sampling.order]
        stages = ", ".join(f'"{stage}"' for stage in sampling.order)
        lines.append(f'order = "{names[0]}"' if names else f"order = [{stages}]")
    if told("end"):
        lines.append(f'end = "{sampling.end}"')
    if told("grammar"):
        text = json.dumps(sampling.grammar, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"grammar = {text}")
    if told("banned"):
        lines.append(f"banned = {list(sampling.banned)}  # ids of one model's tokens")
    if told("logit_bias"):
        pairs = ", ".join(f"[{token}, {bias!r}]" for token, bias in sampling.logit_bias)
        lines.append(f"logit_bias = [{pairs}]  # id and bias")
    return "".join(f"{line}\n" for line in lines)


def _order(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        if value not in ORDERS:
            raise ParameterError(f"order must be {' or '.join(ORDERS)} or a list of stages")
        return ORDERS[value]
    if isinstance(value, list) and all(isinstance(stage, str) for stage in value):
        return tuple(value)
    raise ParameterError("order must be a name or a list of stages")


def _banned(value: object) -> tuple[int, ...]:
    return tuple(_list("banned", value))


def _logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    pairs = [_list("logit_bias", pair) for pair in _list("logit_bias", value)]
    if any(len(pair) != 2 or not _is_number(pair[1]) for pair in pairs):
        raise ParameterError("logit_bias must be a list of pairs of a token's id and a number")
    return tuple((token, float(bias)) for token, bias in pairs)


_RULES: Mapping[str, Any] = {
    "order": _order,
    "end": lambda value: value,  # SamplingParams itself says what it may be
    "banned": _banned,
    "logit_bias": _logit_bias,
    "grammar": lambda value: value,
}
"""What a table may hold besides the numbers, and how it is read."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ParameterError(f"{key} must be a list, not {value!r}")
    return value
