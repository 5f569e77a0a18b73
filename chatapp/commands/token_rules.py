"""Rules about single tokens on the command line: bias, ban, the end, and the order of the stages.

Names of tokens are resolved once the model is loaded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chatapp.chat.errors import UsageError
from chatapp.chat.sampling import ORDERS, TRANSFORMERS_ORDER
from chatapp.chat.served import SERVERS
from chatapp.commands.options import reader
from chatapp.session.grammars import read_grammar
from chatapp.session.token_names import TokenNameError, parse_bias, token_named

if TYPE_CHECKING:
    from chatapp.session.session import Session


def add_token_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rules about tokens", "A token is an id, or its exact text.")
    add = group.add_argument
    add(
        "--logit-bias",
        action="append",
        type=reader(parse_bias),
        default=[],
        metavar="TOKEN=VALUE",
        help="add to a token's logit; repeat",
    )
    add("--ban", action="append", default=[], metavar="TOKEN", help="never take it; repeat")
    add("--end", choices=("allow", "forbid", "force"), help="what may become of the reply's end")
    add(
        "--schema",
        type=reader(lambda file: read_grammar(Path(file))),
        metavar="FILE",
        help="hold the reply to a JSON schema (.json), a grammar (.lark) or a pattern (.regex)",
    )
    add(
        "--order",
        type=reader(_order),
        metavar="ORDER",
        help="of the stages: transformers, llama.cpp, or all of them with commas between",
    )


async def use_token_rules(session: Session, args: argparse.Namespace) -> None:
    """Give a session with a loaded model the rules of the command line, texts made ids.

    Raises UsageError: a text is no single token of this model, or an id is not in its vocabulary.
    """
    assert session.facts is not None  # its model is loaded
    engine, vocab_size = session.engine, session.facts.vocab_size

    async def id_of(option: str, token: str) -> int:
        try:
            return (await token_named(token, engine, vocab_size)).id
        except TokenNameError as error:
            raise UsageError(f"{option}: {error}") from None

    biases = [(await id_of("--logit-bias", bias.token), bias.value) for bias in args.logit_bias]
    banned = [await id_of("--ban", token) for token in args.ban]
    sampling = session.sampling
    if args.schema is not None and session.facts.runtime in SERVERS:
        raise UsageError("--schema: only a model on this machine can be held to it")
    banned += [id_ for id_, bias in biases if bias == -math.inf]
    session.set_sampling(
        replace(
            sampling,
            logit_bias=(*sampling.logit_bias, *(one for one in biases if one[1] > -math.inf)),
            banned=(*sampling.banned, *banned),
            end=args.end or sampling.end,
            grammar=args.schema or sampling.grammar,
            order=args.order or sampling.order,
        )
    )


def _order(text: str) -> Sequence[str]:
    if text in ORDERS:
        return ORDERS[text]
    names = tuple(name.strip().replace("-", "_") for name in text.split(","))
    if sorted(names) != sorted(TRANSFORMERS_ORDER):
        raise UsageError(
            f"order must be {' or '.join(ORDERS)}, or name each of"
            f" {','.join(TRANSFORMERS_ORDER)} once, not {text!r}"
        )
    return names
