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
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import EngineError
from chatapp.commands.options import add_model_options, whole
from chatapp.commands.status import DONE, INTERRUPTED

if TYPE_CHECKING:
    from chatapp.chat.bench import BenchOptions, BenchResult, Quality
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
        "--rounds",
        type=whole("rounds", 1),
        default=3,
        metavar="N",
        help="their median counts (3)",
    )
    parser.add_argument(
        "--quality",
        action="store_true",
        help="how exact the model is as it runs, against its weights in float32",
    )
    parser.add_argument(
        "--screen",
        action="store_true",
        help="the rate inside the interface, in a pseudo-terminal, against `ask`",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and return the exit status."""
    from chatapp.chat.bench import BenchOptions
    from chatapp.commands.setup import Setup
    from chatapp.settings.paths import assets

    options = BenchOptions(
        prompt_tokens=args.prompt_tokens,
        new_tokens=args.new_tokens,
        rounds=args.rounds,
        quality_text=(assets() / "quality.txt").read_text("utf-8") if args.quality else "",
    )
    setup = Setup.from_args(args)
    if args.screen:
        return _bench_screen(setup, options, as_json=args.json)
    return asyncio.run(_bench(setup, options, as_json=args.json))


def _bench_screen(setup: Setup, options: BenchOptions, *, as_json: bool) -> int:
    from chatapp.commands.bench_screen import measure_screen
    from chatapp.commands.progress import ProgressLine

    line = ProgressLine(sys.stderr)
    source = asyncio.run(setup.bring(setup.model, line.update))
    line.close()
    found = measure_screen(source.path, options)
    if as_json:
        print(json.dumps(asdict(found) | {"ratio": found.ratio}))
    else:
        print(
            f"on the screen {median(found.screen):.1f} tok/s, without it"
            f" {median(found.headless):.1f}; the ratio is {found.ratio:.3f}"
            f" (medians of {counted(options.rounds, 'round')})"
        )
    return DONE


async def _bench(setup: Setup, options: BenchOptions, *, as_json: bool) -> int:
    from chatapp.chat.bench import BenchResult, Quality
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
                case Quality():
                    line.close()
                    print(_quality(event, session.facts, as_json=as_json))
                    return DONE
    raise EngineError("the measurement did not end")


def as_json_text(result: BenchResult, facts: ModelFacts) -> str:
    """One object; a ratio is to what `base` names, the median of the rounds."""
    options = result.options
    return json.dumps(
        {
            "model": facts.name,
            "runtime": facts.runtime,
            "weight_format": facts.weight_format,
            "dtype": facts.dtype,
            "device": facts.device,
            "threads": facts.threads,
            "load_seconds": facts.load_seconds,
            "resident_bytes": result.resident_bytes,
            "context_length": facts.context_length,
            "context_bytes": facts.context_bytes,
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
                    "base": one.base,
                    "ratio": one.ratio_to(result.named(one.base)) if one.base else None,
                }
                for one in result.measured
            ],
        }
    )


def as_table(result: BenchResult, facts: ModelFacts) -> str:
    """A row for each way of reading and writing."""
    options = result.options
    lines = [
        f"{facts.name} · {facts.runtime} · {_weights(facts)} · {facts.device}"
        f" · {counted(facts.threads, 'thread')}",
        f"loaded in {facts.load_seconds:.2f} s; {result.resident_bytes / 1e6:.0f} MB of memory with"
        f" a prompt of {options.prompt_tokens} tokens read; a context of {facts.context_length:,}"
        f" takes {facts.context_bytes / 1e6:.0f} MB when it is full",
        f"{options.new_tokens} new tokens; medians of {counted(options.rounds, 'round')} in turn",
        "",
        f"{'':{_WORDS_CELLS}}{'tok/s':>9}{'ratio':>8}",
    ]
    for one in result.measured:
        ratio = f"{one.ratio_to(result.named(one.base)):.3f}" if one.base == "decode" else ""
        lines.append(f"{one.words:{_WORDS_CELLS}}{one.tokens_per_second:9.1f}{ratio:>8}")
    count, base, second = options.new_tokens, result.named("decode"), result.named("second_turn")
    share = 1 / second.ratio_to(result.named(second.base or ""))
    without = count * options.prompt_tokens + count * (count - 1) // 2
    lines += [
        "",
        "ratio: to writing with model and draw alone, within each round.",
        f"The second turn's first token takes {share:.3f} of the time of reading everything again.",
        f"For these the model takes {base.token_passes:,} tokens through its layers with the KV"
        f" cache, and {without:,} without it.",
    ]
    return "\n".join(lines)


def _quality(found: Quality, facts: ModelFacts, *, as_json: bool) -> str:
    """How exact a model is, as one object or in lines."""
    if as_json:
        about = {"model": facts.name, "runtime": facts.runtime, "dtype": facts.dtype}
        return json.dumps(about | asdict(found))
    return "\n".join(
        [
            f"{facts.name} · {facts.runtime} · {_weights(facts)}, against the same weights in"
            f" float32, on {found.tokens} tokens of English",
            "",
            f"KL divergence, in nats              mean {found.kl_mean:.5f}"
            f"   max {found.kl_max:.4f}",
            f"the same most probable token        {found.agreement:.1%}",
            f"perplexity                          {found.perplexity:.3f}"
            f" (float32 {found.perplexity_float32:.3f})",
            f"|difference| of the top 20 logprobs mean {found.top_difference_mean:.4f}"
            f"   max {found.top_difference_max:.3f}",
        ]
    )


def _weights(facts: ModelFacts) -> str:
    """How the weights are stored, and what they are in memory where that is something else."""
    stored = facts.weight_format
    return stored if facts.dtype == "as stored" else f"{stored} as {facts.dtype}"


def counted(count: int, noun: str) -> str:
    """As people write it: 1 round, 3 rounds."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
