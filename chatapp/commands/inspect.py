"""`chatapp inspect`: tokens, embeddings, attention, layers and parts of a model, for any text.

Standard output is a sentence and a table, or with --json one object; a heat map, a map and the
cache's times can be written as a picture.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import UsageError
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
    from chatapp.chat.facts import Progress
    from chatapp.chat.prompt import TokenPiece
    from chatapp.chat.xray import AnalogyResult, Passage, ScoredToken, Term
    from chatapp.explain.views import View
    from chatapp.session.session import Session

MOST_WIDTH = 120
"""Wider terminals get no wider tables."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told of one question."""

    json: dict[str, Any]
    view: View
    picture: Callable[[], str] | None = None
    """The same as SVG, where there is one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: the model that is asked, what was on the command line, and who is told of it."""

    session: Session
    args: argparse.Namespace
    on_progress: Callable[[Progress], None]
    width: int

    async def passage(self, text: str) -> Passage:
        """The text, plain, or with --chat as a message in the model's format."""
        from chatapp.chat.prompt import Prompt, Turn
        from chatapp.chat.xray import Passage

        if not getattr(self.args, "chat", False):
            return Passage(text)
        rendered = await self.session.engine.render(Prompt("", (Turn("user", text),)))
        return Passage(ids=tuple(piece.id for piece in rendered.tokens))


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

    def view(name: str, answer: Callable[[Asked], Awaitable[Answer]], text: str) -> Any:
        one = views.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        one.set_defaults(answer=answer)
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

    tokens = view("tokens", _tokens, "a text as tokens, with ids and bytes")
    text_of(tokens)
    tokens.add_argument("--beside", metavar="REF", help="another model, whose tokens stand below")
    near = view("neighbors", _neighbors, "the tokens whose embeddings are nearest to a word's")
    near.add_argument("word", metavar="WORD", help="a word of one token, or id:N")
    near.add_argument("--matrix", choices=("input", "output"), default="input")
    near.add_argument("--by", choices=("cosine", "dot"), default="cosine")
    count_of(near, 10)
    sums = view("analogy", _analogy, 'the tokens nearest to a sum, such as "woman - man + uncle"')
    sums.add_argument("expression", metavar="SUM", help="words with + and - between them")
    count_of(sums, 10)
    alike = view("similarity", _similarity, "how alike two texts are")
    text_of(alike)
    alike.add_argument("other", metavar="OTHER")
    words = view("map", _map, "words as points in two dimensions")
    words.add_argument("words", nargs="+", metavar="WORD")
    words.add_argument(
        "--method", choices=("pca", "tsne"), default="pca", help="tsne needs chatapp[plots]"
    )
    picture_of(words)
    looked = view("attention", _attention, "which tokens a token looked at")
    token_of(looked)
    looked.add_argument("--layer", type=_number, default=-1, metavar="N", help="which (last one)")
    looked.add_argument("--head", type=_number, metavar="N", help="which; the mean without it")
    looked.add_argument("--all", action="store_true", help="all tokens against all: a heat map")
    looked.add_argument("--heads", action="store_true", help="what every head of every layer does")
    picture_of(looked)
    layers = view("lens", _lens, "the prediction after every layer")
    token_of(layers)
    count_of(layers, 5)
    parts = view("attribution", _attribution, "what each part adds to a token's logit")
    token_of(parts)
    parts.add_argument(
        "--target", metavar="TOKEN", help="a word or id:N; else the token that follows"
    )
    parts.add_argument("--heads", action="store_true", help="attention head by head")
    place = view("positions", _positions, "how the model knows the order of tokens")
    place.add_argument("position", type=whole("position", 0), metavar="N")
    built = view("anatomy", _anatomy, "layers, widths and weights of the model")
    built.add_argument("--measure", action="store_true", help="measure how fast it writes, too")
    kept = view("cache", _cache, "a text read with and without the KV cache, measured")
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

    width = min(MOST_WIDTH, shutil.get_terminal_size().columns)
    async with Setup.from_args(args).headless(keep=False) as session:
        with ProgressLine(sys.stderr) as line:
            answer = await args.answer(Asked(session, args, line.update, width))
        if args.json:
            facts = session.facts
            assert facts is not None  # a headless session has its model loaded
            where = {"model": facts.name, "runtime": facts.runtime}
            write_json({"type": args.view, **where, **answer.json})
        else:
            for row in answer.view.rows(width):
                write(row)
    if (picture := getattr(args, "picture", None)) and answer.picture is not None:
        write_private_file(Path(picture), answer.picture(), way_out="give another name")
    return DONE


async def _tokens(asked: Asked) -> Answer:
    from chatapp.commands.setup import Setup
    from chatapp.explain import views

    args = asked.args
    passage = await asked.passage(args.text)
    pieces = await asked.session.engine.passage(passage)
    answer = Answer(_tokens_json(pieces), views.tokens(pieces, asked.width))
    if args.beside is None:
        return answer
    other = argparse.Namespace(**{**vars(args), "model": args.beside})
    async with Setup.from_args(other).headless(keep=False) as session:
        theirs = await Asked(session, other, asked.on_progress, asked.width).passage(args.text)
        others = await session.engine.passage(theirs)
        assert session.facts is not None
        beside = {"model": session.facts.name, **_tokens_json(others)}
    mine, second = answer.view, views.tokens(others, asked.width)
    lines = (*mine.lines, "", f"{beside['model']}:", second.sentence, "", *second.lines)
    view = views.View(mine.title, mine.sentence, lines, mine.remark)
    return Answer({**answer.json, "beside": beside}, view)


def _tokens_json(pieces: tuple[TokenPiece, ...]) -> dict[str, Any]:
    from chatapp.explain.views import kinds_of

    plain = b"".join(piece.bytes for piece in pieces if not piece.control)
    return {
        "tokens": [
            {**_piece(piece), "kind": kind}
            for piece, kind in zip(pieces, kinds_of(pieces), strict=True)
        ],
        "characters": len(plain.decode("utf-8", "replace")),
    }


async def _neighbors(asked: Asked) -> Answer:
    from chatapp.explain import views

    args = asked.args
    found = await asked.session.engine.neighbors(
        args.word, args.matrix, args.by, args.count, on_progress=asked.on_progress
    )
    return Answer(
        {
            "id": found.piece.id,
            "token": found.piece.token,
            "matrix": found.matrix,
            "by": found.by,
            "neighbors": [_scored(one, "score") for one in found.neighbors],
        },
        views.neighbors(found, asked.width),
    )


async def _analogy(asked: Asked) -> Answer:
    from chatapp.explain import views

    args = asked.args
    found = await asked.session.engine.analogy(
        args.expression, args.count, on_progress=asked.on_progress
    )
    terms, results = map(_told, found.terms), map(_told, found.results)
    answer = {"terms": list(terms), "results": list(results)}
    return Answer(answer, views.analogy(found, asked.width))


async def _similarity(asked: Asked) -> Answer:
    from chatapp.explain import views

    one, other = [await asked.passage(text) for text in (asked.args.text, asked.args.other)]
    found = await asked.session.engine.similarity(one, other, on_progress=asked.on_progress)
    return Answer(plain(found), views.similarity(found, asked.width))


async def _map(asked: Asked) -> Answer:
    from chatapp.explain import pictures, views

    found = await asked.session.engine.embedding_map(
        asked.args.words, asked.args.method, on_progress=asked.on_progress
    )
    points = [
        {"id": one.piece.id, "token": one.piece.token, "x": one.x, "y": one.y}
        for one in found.points
    ]
    return Answer(
        {"method": found.method, "explained": list(found.explained), "points": points},
        views.word_map(found, asked.width),
        lambda: pictures.word_map(found),
    )


async def _attention(asked: Asked) -> Answer:
    from chatapp.explain import pictures, views

    args, engine = asked.args, asked.session.engine
    passage = await asked.passage(args.text)
    if args.heads:
        profiles = await engine.head_profiles(passage, args.token, on_progress=asked.on_progress)
        pieces = await engine.passage(passage)
        heads = plain(profiles)
        place = args.token % len(pieces)
        view = views.head_profiles(profiles, pieces[place], asked.width)
        return Answer({"token": place, "heads": heads}, view)
    found = await engine.attention(
        passage, args.token, args.layer, args.head, args.all, on_progress=asked.on_progress
    )
    rows = [list(row) for row in found.rows]
    return Answer(
        {
            "tokens": [_piece(piece) for piece in found.tokens],
            "token": found.token,
            "layer": found.layer,
            "head": found.head,
            **({"rows": rows} if args.all else {"row": rows[0]}),
        },
        views.attention(found, asked.width),
        lambda: pictures.heat_map(found),
    )


async def _lens(asked: Asked) -> Answer:
    from chatapp.explain import views

    args = asked.args
    found = await asked.session.engine.lens(
        await asked.passage(args.text), args.token, args.count, on_progress=asked.on_progress
    )
    layers = [
        {
            "layer": one.layer,
            "top": [_scored(two, "prob") for two in one.top],
            "kl_bits": one.kl_bits,
            "rank": one.rank,
        }
        for one in found.layers
    ]
    return Answer({"token": found.token, "layers": layers}, views.lens(found, asked.width))


async def _attribution(asked: Asked) -> Answer:
    from chatapp.explain import views

    args = asked.args
    found = await asked.session.engine.attribution(
        await asked.passage(args.text),
        args.token,
        args.target,
        args.heads,
        on_progress=asked.on_progress,
    )
    parts = [
        {
            "layer": part.layer if part.layer >= 0 else None,
            "kind": part.kind,
            **({} if part.head is None else {"head": part.head}),
            "value": part.value,
        }
        for part in found.parts
    ]
    return Answer(
        {
            "token": found.token,
            "target": _piece(found.target),
            "parts": parts,
            "sum": found.sum,
            "logit": found.logit,
        },
        views.attribution(found, asked.width),
    )


async def _positions(asked: Asked) -> Answer:
    from chatapp.explain import views

    found = await asked.session.engine.positions(asked.args.position, on_progress=asked.on_progress)
    return Answer(plain(found), views.positions(found, asked.width))


async def _anatomy(asked: Asked) -> Answer:
    from chatapp.chat.xray import Passage
    from chatapp.explain import views

    engine = asked.session.engine
    found = await engine.anatomy()
    measured: float | None = None
    if asked.args.measure:
        text = Passage("The quick brown fox jumps over the lazy dog. " * 4)
        last = (await engine.cache_run(text, on_progress=asked.on_progress)).points[-1]
        measured = last.tokens / last.seconds_with
    speed = {} if measured is None else {"tokens_per_second": measured}
    answer = {**plain(found), **speed}
    return Answer(answer, views.anatomy(found, asked.width, measured=measured))


async def _cache(asked: Asked) -> Answer:
    from chatapp.explain import pictures, views

    found = await asked.session.engine.cache_run(
        await asked.passage(asked.args.text), on_progress=asked.on_progress
    )
    return Answer(
        plain(found), views.cache_run(found, asked.width), lambda: pictures.cache_run(found)
    )


def _piece(piece: TokenPiece) -> dict[str, Any]:
    return {"id": piece.id, "token": piece.token, "bytes": list(piece.bytes)}


def _told(one: AnalogyResult | Term) -> dict[str, Any]:
    told = plain(one)
    piece = told.pop("piece")
    return {"id": piece["id"], "token": piece["token"], **told}


def _scored(one: ScoredToken, name: str) -> dict[str, Any]:
    return {"id": one.piece.id, "token": one.piece.token, name: one.score}
