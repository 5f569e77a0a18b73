"""Rules about single tokens on the command line: bias, ban, the end, and the order of the stages.

Names of tokens are resolved once the model is loaded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import UsageError
from chatapp.chat.sampling import ORDERS, TRANSFORMERS_ORDER
from chatapp.session.token_names import Bias, TokenNameError, parse_bias, token_named

if TYPE_CHECKING:
    from chatapp.chat.facts import ModelFacts
    from chatapp.chat.sampling import SamplingParams
    from chatapp.session.protocols import Engine


def add_token_rules(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("rules about tokens", "A token is an id, or its exact text.")
    add = group.add_argument
    add(
        "--logit-bias",
        action="append",
        type=_bias,
        default=[],
        metavar="TOKEN=VALUE",
        help="add to a token's logit; repeat",
    )
    add("--ban", action="append", default=[], metavar="TOKEN", help="never take it; repeat")
    add("--end", choices=("allow", "forbid", "force"), help="what may become of the reply's end")
    add(
        "--order",
        type=_order,
        metavar="ORDER",
        help="of the stages: transformers, llama.cpp, or all of them with commas between",
    )


async def with_token_rules(
    sampling: SamplingParams, args: argparse.Namespace, engine: Engine, facts: ModelFacts
) -> SamplingParams:
    """The parameters with the rules of the command line, texts made ids.

    Raises:
        UsageError: a text is no single token of this model, or an id is not in its vocabulary.
    """
    biases = [
        (await _token_id("--logit-bias", bias.token, engine, facts), bias.value)
        for bias in args.logit_bias
    ]
    banned = [await _token_id("--ban", token, engine, facts) for token in args.ban]
    banned += [id_ for id_, value in biases if value == -math.inf]
    biases = [(id_, value) for id_, value in biases if value > -math.inf]
    changes: dict[str, Any] = {}
    if biases:
        changes["logit_bias"] = (*sampling.logit_bias, *biases)
    if banned:
        changes["banned"] = (*sampling.banned, *banned)
    if args.end is not None:
        changes["end"] = args.end
    if args.order is not None:
        changes["order"] = args.order
    return replace(sampling, **changes)


async def _token_id(option: str, token: str, engine: Engine, facts: ModelFacts) -> int:
    try:
        return (await token_named(token, engine, facts.vocab_size)).id
    except TokenNameError as error:
        raise UsageError(f"{option}: {error}") from None


def _bias(text: str) -> Bias:
    try:
        return parse_bias(text)
    except TokenNameError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _order(text: str) -> Sequence[str]:
    if text in ORDERS:
        return ORDERS[text]
    names = tuple(name.strip().replace("-", "_") for name in text.split(","))
    if sorted(names) != sorted(TRANSFORMERS_ORDER):
        raise argparse.ArgumentTypeError(
            f"order must be {' or '.join(ORDERS)}, or name each of"
            f" {','.join(TRANSFORMERS_ORDER)} once, not {text!r}"
        )
    return names
