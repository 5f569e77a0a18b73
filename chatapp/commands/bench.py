"""`chatapp bench`: how fast the model reads and writes on this machine, and what the numbers cost.

What is compared was measured in one run, in turn. The numbers beside each token (candidates, trace,
kept logits) stand against writing without them; our loop against transformers' generate(); the KV
cache against reading everything again for every token.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from chatapp.chat.bench import BenchOptions, BenchResult, Quality
from chatapp.commands.options import add_json, add_model_options, add_subcommand, whole
from chatapp.commands.output import plain, write, write_json
from chatapp.commands.progress import ProgressLine
from chatapp.commands.running import DONE, INTERRUPTED, follow

if TYPE_CHECKING:
    from chatapp.chat.facts import ModelFacts
    from chatapp.commands.setup import Setup

_WORDS_CELLS = 44


def add_parser(commands: Any) -> None:
    parser = add_subcommand(
        commands,
        "bench",
        run,
        "speed on this machine, with and without the KV cache, against generate()",
        "Time how the model reads and writes here. Every way of writing writes as many"
        " tokens with the same settings, in turn; ratios are made within a round.",
    )
    for name, least, usual, text in (
        ("prompt-tokens", 1, 128, "(128)"),
        ("new-tokens", 2, 64, "a round (64)"),
        ("rounds", 1, 3, "their median counts (3)"),
    ):
        reader = whole(name, least)
        parser.add_argument(f"--{name}", type=reader, default=usual, metavar="N", help=text)
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
    add_json(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
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

    with ProgressLine(sys.stderr) as line:
        source = asyncio.run(setup.bring(setup.model, line.update))
    found = measure_screen(source.path, options)
    if as_json:
        write_json(plain(found) | {"ratio": found.ratio})
    else:
        write(
            f"on the screen {median(found.screen):.1f} tok/s, without it"
            f" {median(found.headless):.1f}; the ratio is {found.ratio:.3f}"
            f" (medians of {counted(options.rounds, 'round')})"
        )
    return DONE


async def _bench(setup: Setup, options: BenchOptions, *, as_json: bool) -> int:
    found: list[BenchResult | Quality] = []
    async with setup.headless(keep=False) as session:
        assert session.facts is not None  # a headless session has its model loaded
        facts = session.facts
        await follow(session.engine.bench(options), found.append)
    (result,) = found
    if getattr(result, "cancelled", False):
        return INTERRUPTED
    if as_json:
        write_json(_object(result, facts))
    else:
        write(_quality(result, facts) if isinstance(result, Quality) else _table(result, facts))
    return DONE


def _object(result: BenchResult | Quality, facts: ModelFacts) -> dict[str, Any]:
    """For JSON; a ratio is to what `base` names, the median of the rounds."""
    names = ["runtime", "dtype"]
    if not isinstance(result, Quality):
        names += ["weight_format", "device", "threads", "load_seconds"]
        names += ["context_length", "context_bytes"]
    about = {"model": facts.name, **{name: getattr(facts, name) for name in names}}
    if isinstance(result, Quality):
        return {**about, **plain(result)}
    measured = [
        {
            **plain(one),
            "tokens_per_second": one.tokens_per_second,
            "ratio": one.ratio_to(result.named(one.base)) if one.base else None,
        }
        for one in result.measured
    ]
    options = result.options
    return {
        **about,
        "resident_bytes": result.resident_bytes,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "rounds": options.rounds,
        "measured": measured,
    }


def _table(result: BenchResult, facts: ModelFacts) -> str:
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


def _quality(found: Quality, facts: ModelFacts) -> str:
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
