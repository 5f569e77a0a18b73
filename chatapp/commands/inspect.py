"""`chatapp inspect`: tokens, embeddings, attention, layers and parts of a model, for any text.

Standard output is a sentence and a table, or with --json one object; a heat map, a map and the
cache's times can be written as a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import UsageError
from chatapp.chat.facts import Report
from chatapp.chat.prompt import Prompt, TokenPiece, Turn
from chatapp.commands.options import add_json, add_model_options, add_subcommand, whole
from chatapp.commands.output import (
    check_standard_output,
    plain,
    write,
    write_json,
    write_private_file,
)
from chatapp.commands.running import DONE

if TYPE_CHECKING:
    from chatapp.chat.xray import Passage
    from chatapp.explain.views import Made
    from chatapp.session.session import Session

MOST_WIDTH = 120
"""Wider terminals get no wider tables."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told of one question."""

    json: dict[str, Any]
    view: Made
    picture: Callable[[], str] | None = None
    """The same as SVG, where there is one."""


def add_parser(commands: Any) -> None:
    """Add `inspect` and its views to the command line."""
    parser = add_subcommand(
        commands,
        "inspect",
        run,
        "look inside the model: tokens, embeddings, attention, layers, parts",
        "Look inside the model, with its real weights in float32. Layers, heads and tokens are"
        " counted from 0; negative numbers count from the end.",
    )
    views = parser.add_subparsers(
        dest="view", metavar="VIEW", required=True, parser_class=type(parser)
    )

    def view(name: str, text: str) -> Any:
        one = views.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_json(one)
        add_model_options(one)
        return one

    def text_of(one: Any) -> None:
        one.add_argument("text", metavar="TEXT", help="what the model reads")
        one.add_argument("--chat", action="store_true", help="as a message in the model's format")

    def token_of(one: Any) -> None:
        text_of(one)
        one.add_argument("--token", type=_number, default=-1, metavar="N", help="which (last one)")

    def picture_of(one: Any) -> None:
        one.add_argument("--picture", metavar="FILE.svg", help="write it as a picture, too")

    def count_of(one: Any, default: int) -> None:
        one.add_argument(
            "--count",
            type=whole("count", 1),
            default=default,
            metavar="N",
            help="how many are listed",
        )

    tokens = view("tokens", "a text as tokens, with ids and bytes")
    text_of(tokens)
    tokens.add_argument("--beside", metavar="REF", help="another model, whose tokens stand below")
    near = view("neighbors", "the tokens whose embeddings are nearest to a word's")
    near.add_argument("word", metavar="WORD", help="a word of one token, or id:N")
    near.add_argument("--matrix", choices=("input", "output"), default="input")
    near.add_argument("--by", choices=("cosine", "dot"), default="cosine")
    count_of(near, 10)
    sums = view("analogy", 'the tokens nearest to a sum, such as "woman - man + uncle"')
    sums.add_argument("expression", metavar="SUM", help="words with + and - between them")
    count_of(sums, 10)
    alike = view("similarity", "how alike two texts are")
    text_of(alike)
    alike.add_argument("other", metavar="OTHER")
    words = view("map", "words as points in two dimensions")
    words.add_argument("words", nargs="+", metavar="WORD")
    words.add_argument(
        "--method", choices=("pca", "tsne"), default="pca", help="tsne needs chatapp[plots]"
    )
    picture_of(words)
    looked = view("attention", "which tokens a token looked at")
    token_of(looked)
    looked.add_argument("--layer", type=_number, default=-1, metavar="N", help="which (last one)")
    looked.add_argument("--head", type=_number, metavar="N", help="which; the mean without it")
    looked.add_argument("--all", action="store_true", help="all tokens against all: a heat map")
    looked.add_argument("--heads", action="store_true", help="what every head of every layer does")
    picture_of(looked)
    layers = view("lens", "the prediction after every layer")
    token_of(layers)
    count_of(layers, 5)
    parts = view("attribution", "what each part adds to a token's logit")
    token_of(parts)
    parts.add_argument(
        "--target", metavar="TOKEN", help="a word or id:N; else the token that follows"
    )
    parts.add_argument("--heads", action="store_true", help="attention head by head")
    place = view("positions", "how the model knows the order of tokens")
    place.add_argument("position", type=whole("position", 0), metavar="N")
    built = view("anatomy", "layers, widths and weights of the model")
    built.add_argument("--measure", action="store_true", help="measure how fast it writes, too")
    kept = view("cache", "a text read with and without the KV cache, measured")
    text_of(kept)
    picture_of(kept)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def run(args: argparse.Namespace) -> int:
    """Answer one question, and return the exit status."""
    check_standard_output()
    picture = getattr(args, "picture", None)
    if picture is not None and not picture.lower().endswith(".svg"):
        raise UsageError(
            f"pictures are written as SVG; give a name that ends in .svg, not {picture}"
        )
    if picture is not None and args.view == "attention" and not args.all:
        raise UsageError("the picture of attention is the heat map; add --all")
    return asyncio.run(_answer(args))


async def _answer(args: argparse.Namespace) -> int:
    from chatapp.commands.progress import ProgressLine
    from chatapp.commands.setup import Setup

    async with Setup.from_args(args).headless(keep=False) as session:
        with ProgressLine(sys.stderr) as line:
            answer = await look(session, args, line.update)
        if args.json:
            facts = session.facts
            assert facts is not None  # a headless session has its model loaded
            where = {"model": facts.name, "runtime": facts.runtime}
            write_json({"type": args.view, **where, **answer.json})
        else:
            width = min(MOST_WIDTH, shutil.get_terminal_size().columns)
            for row in answer.view(width).rows(width):
                write(row)
    if (picture := getattr(args, "picture", None)) and answer.picture is not None:
        write_private_file(Path(picture), answer.picture(), way_out="give another name")
    return DONE


async def look(session: Session, args: argparse.Namespace, report: Report) -> Answer:
    """Ask what the command line names. Raises ChatappError."""
    from chatapp.chat.xray import Passage
    from chatapp.explain import pictures, views

    engine = session.engine
    passage = await _passage(session, args, args.text) if hasattr(args, "text") else Passage()
    told: dict[str, Any]
    match args.view:
        case "tokens":
            pieces = await engine.passage(passage)
            answer = Answer(_tokens(pieces), partial(views.tokens, pieces))
            return answer if args.beside is None else await _beside(answer, args)
        case "neighbors":
            near = await engine.neighbors(
                args.word, args.matrix, args.by, args.count, on_progress=report
            )
            return Answer(_told(near, "spaced", "row"), partial(views.neighbors, near))
        case "analogy":
            nearest = await engine.analogy(args.expression, args.count, on_progress=report)
            return Answer(_told(nearest), partial(views.analogy, nearest))
        case "similarity":
            other = await _passage(session, args, args.other)
            alike = await engine.similarity(passage, other, on_progress=report)
            return Answer(_told(alike), partial(views.similarity, alike))
        case "map":
            words = await engine.embedding_map(args.words, args.method, on_progress=report)
            picture = partial(pictures.word_map, words)
            return Answer(_told(words, "text"), partial(views.word_map, words), picture)
        case "attention" if args.heads:
            heads = await engine.head_profiles(passage, args.token, on_progress=report)
            pieces = await engine.passage(passage)
            place = args.token % len(pieces)
            told = {"token": place, "heads": _told(heads)}
            return Answer(told, partial(views.head_profiles, heads, pieces[place]))
        case "attention":
            looked = await engine.attention(
                passage, args.token, args.layer, args.head, args.all, on_progress=report
            )
            rows = [list(row) for row in looked.rows]
            told = {**_told(looked, "rows"), **({"rows": rows} if args.all else {"row": rows[0]})}
            picture = partial(pictures.heat_map, looked)
            return Answer(told, partial(views.attention, looked), picture)
        case "lens":
            lens = await engine.lens(passage, args.token, args.count, on_progress=report)
            told = _told(lens, "tokens")
            for one in (one for layer in told["layers"] for one in layer["top"]):
                one["prob"] = one.pop("score")
            return Answer(told, partial(views.lens, lens))
        case "attribution":
            parts = await engine.attribution(
                passage, args.token, args.target, args.heads, on_progress=report
            )
            told = _told(parts, "tokens")
            for part in told["parts"]:
                part["layer"] = part["layer"] if part["layer"] >= 0 else None
                if part["head"] is None:
                    del part["head"]
            return Answer(told, partial(views.attribution, parts))
        case "positions":
            turned = await engine.positions(args.position, on_progress=report)
            return Answer(_told(turned), partial(views.positions, turned))
        case "anatomy":
            built = await engine.anatomy()
            told, speed = _told(built), None
            if args.measure:
                text = Passage("The quick brown fox jumps over the lazy dog. " * 4)
                last = (await engine.cache_run(text, on_progress=report)).points[-1]
                told["tokens_per_second"] = speed = last.tokens / last.seconds_with
            return Answer(told, partial(views.anatomy, built, measured=speed))
    kept = await engine.cache_run(passage, on_progress=report)
    return Answer(_told(kept), partial(views.cache_run, kept), partial(pictures.cache_run, kept))


async def _passage(session: Session, args: argparse.Namespace, text: str) -> Passage:
    """The text, plain, or with --chat as a message in the model's format."""
    from chatapp.chat.xray import Passage

    if not args.chat:
        return Passage(text)
    rendered = await session.engine.render(Prompt("", (Turn("user", text),)))
    return Passage(ids=tuple(piece.id for piece in rendered.tokens))


async def _beside(answer: Answer, args: argparse.Namespace) -> Answer:
    """The tokens of another model below those of the first one."""
    from chatapp.commands.setup import Setup
    from chatapp.explain import views

    other = argparse.Namespace(**{**vars(args), "model": args.beside})
    async with Setup.from_args(other).headless(keep=False) as session:
        others = await session.engine.passage(await _passage(session, args, args.text))
        assert session.facts is not None
        name = session.facts.name

    def view(width: int) -> views.View:
        mine, second = answer.view(width), views.tokens(others, width)
        lines = (*mine.lines, "", f"{name}:", second.sentence, "", *second.lines)
        return replace(mine, lines=lines)

    return Answer({**answer.json, "beside": {"model": name, **_tokens(others)}}, view)


def _tokens(pieces: tuple[TokenPiece, ...]) -> dict[str, Any]:
    from chatapp.explain.views import kinds_of

    text = b"".join(piece.bytes for piece in pieces if not piece.control)
    return {
        "tokens": [
            {**_told(piece), "kind": kind}
            for piece, kind in zip(pieces, kinds_of(pieces), strict=True)
        ],
        "characters": len(text.decode("utf-8", "replace")),
    }


def _told(value: Any, *without: str) -> Any:
    """An answer as JSON has it: a token by its id and text, and by its bytes where it has no number
    of its own beside it. `without` are the fields that are left out."""
    if isinstance(value, TokenPiece):
        return {"id": value.id, "token": value.token, "bytes": list(value.bytes)}
    if isinstance(value, tuple):
        return [_told(one, *without) for one in value]
    if not is_dataclass(value):
        return plain(value)
    names = [field.name for field in fields(value) if field.name not in without]
    told = {name: _told(getattr(value, name), *without) for name in names}
    if (piece := told.pop("piece", None)) is not None:
        told = {"id": piece["id"], "token": piece["token"], **told}
    return told
