"""`chatapp bench`: how fast the model reads and writes on this machine, and what the numbers cost.

What is compared was measured in one run, in turn. The numbers beside each token (candidates, trace,
kept logits) stand against writing without them; our loop against transformers' generate(); the KV
cache against reading everything again for every token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import EngineError
from chatapp.commands.options import add_model_options, whole
from chatapp.commands.status import DONE, INTERRUPTED

if TYPE_CHECKING:
    from chatapp.chat.bench import BenchOptions, BenchResult
    from chatapp.chat.facts import ModelFacts
    from chatapp.commands.setup import Setup

_WORDS_CELLS = 44


def add_parser(commands: Any) -> None:
    """Add `bench` to the command line."""
    parser = commands.add_parser(
        "bench",
        help="speed on this machine, with and without the KV cache, against generate()",
        description="Time how the model reads and writes here. Every way of writing writes as many"
        " tokens with the same settings, in turn; ratios are made within a round.",
    )
    parser.add_argument(
        "--prompt-tokens", type=whole("prompt-tokens", 1), default=128, metavar="N", help="(128)"
    )
    parser.add_argument(
        "--new-tokens", type=whole("new-tokens", 2), default=64, metavar="N", help="a round (64)"
    )
    parser.add_argument(
        "--rounds", type=whole("rounds", 1), default=3, metavar="N", help="the median is told (3)"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and return the exit status."""
    from chatapp.chat.bench import BenchOptions
    from chatapp.commands.setup import Setup

    options = BenchOptions(
        prompt_tokens=args.prompt_tokens, new_tokens=args.new_tokens, rounds=args.rounds
    )
    return asyncio.run(_bench(Setup.from_args(args), options, as_json=args.json))


async def _bench(setup: Setup, options: BenchOptions, *, as_json: bool) -> int:
    from chatapp.chat.bench import BenchResult
    from chatapp.chat.facts import Progress
    from chatapp.commands.progress import ProgressLine

    line = ProgressLine(sys.stderr)
    async with setup.headless(keep=False) as session:
        assert session.facts is not None  # a headless session has its model loaded
        async for event in session.engine.bench(options):
            match event:
                case Progress():
                    line.update(event)
                case BenchResult():
                    line.close()
                    if event.cancelled:
                        return INTERRUPTED
                    text = as_json_text if as_json else as_table
                    print(text(event, session.facts))
                    return DONE
    raise EngineError("the measurement did not end")


def as_json_text(result: BenchResult, facts: ModelFacts) -> str:
    """One object; `ratio` is to `decode`, the median of the rounds."""
    options = result.options
    base = next(one for one in result.measured if one.name == "decode")
    return json.dumps(
        {
            "model": facts.name,
            "weight_format": facts.weight_format,
            "dtype": facts.dtype,
            "device": facts.device,
            "threads": result.threads,
            "prompt_tokens": options.prompt_tokens,
            "new_tokens": options.new_tokens,
            "rounds": options.rounds,
            "measured": [
                {
                    "name": one.name,
                    "tokens": one.tokens,
                    "token_passes": one.token_passes,
                    "seconds": list(one.seconds),
                    "tokens_per_second": one.tokens_per_second,
                    "ratio": None if one.name == "prefill" else one.ratio_to(base),
                }
                for one in result.measured
            ],
        }
    )


def as_table(result: BenchResult, facts: ModelFacts) -> str:
    """A row for each way of reading and writing."""
    options = result.options
    base = next(one for one in result.measured if one.name == "decode")
    lines = [
        f"{facts.name} · {facts.weight_format} as {facts.dtype} · {facts.device}"
        f" · {result.threads} threads",
        f"a prompt of {options.prompt_tokens} tokens, {options.new_tokens} new ones; medians of"
        f" {options.rounds} rounds in turn",
        "",
        f"{'':{_WORDS_CELLS}}{'tok/s':>9}{'ratio':>8}",
    ]
    for one in result.measured:
        ratio = "" if one.name == "prefill" else f"{one.ratio_to(base):.3f}"
        lines.append(f"{one.words:{_WORDS_CELLS}}{one.tokens_per_second:9.1f}{ratio:>8}")
    count = options.new_tokens
    without = count * options.prompt_tokens + count * (count - 1) // 2
    lines += [
        "",
        "ratio: to writing with model and draw alone, within each round.",
        f"For these the model takes {base.token_passes:,} tokens through its layers with the KV"
        f" cache, and {without:,} without it.",
    ]
    return "\n".join(lines)
