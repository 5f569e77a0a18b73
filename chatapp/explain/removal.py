"""What cut a candidate, in words: "cut by min-p 0.05: needed 2.1 %, had 1.4 %".

What the two numbers of a `Removal` measure depends on the stage; the words say it.
"""

from __future__ import annotations

from chatapp.chat.numbers import bits, count, decimal, percent, percent_pair, temperature
from chatapp.chat.record import Removal
from chatapp.chat.sampling import PARAMETERS

_PARAMETER_OF_STAGE = {
    "repetition": "repetition_penalty",
    "presence": "presence_penalty",
    "frequency": "frequency_penalty",
    "dry": "dry_multiplier",
    "typical": "typical_p",
    "xtc": "xtc_probability",
    "mirostat": "mirostat_tau",
}
"""Stages that are not called like the parameter that switches them on."""

_NAMES = {
    "end": "end rule",
    "temperature": "T",
    "xtc": "XTC",
    "mirostat": "mirostat τ",
}
"""Stages with a name of their own; the others are called like their parameter."""

_CUTTERS = {"bias": "a ban", "end": "the end rule", "grammar": "the grammar"}
"""What cuts where a stage has no setting to name."""


def stage_name(stage: str) -> str:
    """What the screen calls a stage: "top-p"."""
    if stage in _NAMES:
        return _NAMES[stage]
    parameter = PARAMETERS.get(parameter_of(stage))
    return parameter.label if parameter else stage


def parameter_of(stage: str) -> str:
    """The name of the parameter that switches a stage on."""
    return _PARAMETER_OF_STAGE.get(stage, stage)


def setting_text(stage: str, setting: float) -> str:
    """What a stage was set to, as its parameter prints it: "0.95"."""
    if stage == "temperature":
        return temperature(setting)
    parameter = PARAMETERS.get(parameter_of(stage))
    return parameter.format(setting) if parameter else f"{setting:g}"


def cut_by(removal: Removal) -> str:
    """Which stage cut it, at which setting: "cut by top-p 0.95"."""
    return f"cut by {_stage_and_setting(removal)}"


def cut_by_variants(removal: Removal) -> tuple[str, ...]:
    """The same in ever fewer characters, for narrow columns."""
    name = _CUTTERS.get(removal.stage, stage_name(removal.stage))
    return cut_by(removal), f"cut by {name}", _stage_and_setting(removal), name, "cut"


def shortfall(removal: Removal) -> str:
    """What the candidate needed and had, in the measure of the stage."""
    needed, had = removal.threshold, removal.value
    match removal.stage:
        case "top_k":
            return f"needed rank {count(round(needed))} or better, had {count(round(had))}"
        case "top_p" | "typical":  # the mass of what comes first in the stage's order
            return f"tokens above hold {percent(had)} already"
        case "min_p":
            needed_text, had_text = percent_pair(needed, had)
            return f"needed {needed_text}, had {had_text}"
        case "xtc":
            needed_text, had_text = percent_pair(needed, had)
            return f"needed <{needed_text}, had {had_text}"
        case "mirostat":
            return f"needed ≤{bits(needed)}, had {bits(had)}"
        case "top_n_sigma" | "temperature":
            return f"needed logit {_logit(needed, had)}, had {_logit(had, needed)}"
        case "no_repeat_ngram":
            return f"it would repeat {removal.setting:.0f} tokens in a row"
        case "min_tokens":
            return f"no end before {removal.setting:.0f} tokens"
        case "end":
            return "only an end was allowed" if removal.setting else "no end was allowed"
        case "grammar":
            return "the grammar lets it not come here"
        case "bias":
            return "it is on the list of banned tokens"
    return f"needed {decimal(needed)}, had {decimal(had)}"


def _stage_and_setting(removal: Removal) -> str:
    if removal.stage in _CUTTERS:
        return _CUTTERS[removal.stage]
    return f"{stage_name(removal.stage)} {setting_text(removal.stage, removal.setting)}"


def _logit(value: float, other: float) -> str:
    """A logit with as many digits as tell it from the other one, two at least."""
    for digits in range(2, 6):
        if decimal(value, digits) != decimal(other, digits):
            return decimal(value, digits)
    return decimal(value, 6)
