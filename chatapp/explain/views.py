"""Each answer about the inside of a model as a reader sees it: a sentence, lines, a remark.

The command line and the screen show the same view; `width` is how many characters a line may have.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

from chatapp.chat.facts import Report
from chatapp.chat.inspection import StageTrace
from chatapp.chat.numbers import count, decimal, percent, size
from chatapp.chat.numbers import tokens as token_count
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import TokenRecord
from chatapp.chat.text import sanitise, visible_token
from chatapp.chat.xray import (
    Analogy,
    Anatomy,
    Attention,
    Attribution,
    CacheRun,
    EmbeddingMap,
    HeadProfile,
    Lens,
    Neighbors,
    Positions,
    Similarity,
)
from chatapp.explain.cells import fit_token
from chatapp.explain.plots import SHADES_TOLD, bar, rounded, scatter, shade, signed_bar
from chatapp.explain.removal import cut_by, setting_text, shortfall, stage_name

Kind = Literal["control", "byte", "word", "inside", "mark"]
_KIND_WORDS: dict[Kind, str] = {
    "control": "control token",
    "byte": "part of a character",
    "word": "begins a word",
    "inside": "inside a word",
    "mark": "mark or space",
}
TOKEN_WIDTH = 16
_BAR = 24
_MOST_ROWS = 48
_MOST_LOOKED_AT = 24
_AROUND = 6
"""How many lines of a heat map stand above and below the one that is pointed at."""
_FIRST = 8
"""Of how many candidates it is told what cut them."""
MAP_HEIGHT = 18
_NARROW = 70
"""Below that many characters a line, tables have fewer columns and no bars: a side panel's."""


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of one answer. All text is safe to print; no line breaks in `lines`."""

    title: str
    sentence: str
    """For someone who has never seen a model."""
    lines: tuple[str, ...]
    remark: str = ""
    """What the numbers are, exactly."""

    def rows(self, width: int, words_first: bool = True) -> list[str]:
        """All of it, for lines of that many characters; the sentence first, or behind the lines."""
        remark = ["", *textwrap.wrap(self.remark, width)] if self.remark else []
        lines = [line.rstrip() for line in self.lines]
        sentence = textwrap.wrap(self.sentence, width)
        parts = (sentence, lines) if words_first else (lines, sentence)
        return [*parts[0], "", *parts[1], *remark] if parts[0] else [*parts[1], *remark]


Made = Callable[[int], View]
"""A view for lines of so many characters."""


@dataclass(frozen=True, slots=True)
class Page:
    """A view that is made when it is looked at."""

    name: str
    make: Callable[[Report], Awaitable[Made]]
    """Raises EngineError."""
    deep: str = ""
    """The name of the page that shows more of it; empty for none."""


def kind_of(piece: TokenPiece, first: bool = False) -> Kind:
    """What a token is in its text; the first one of a text begins a word without a space."""
    if piece.control:
        return "control"
    try:
        text = piece.bytes.decode()
    except UnicodeDecodeError:
        return "byte"
    if not any(map(str.isalnum, text)):
        return "mark"
    return "word" if first or not text[0].isalnum() else "inside"


def kinds_of(pieces: Sequence[TokenPiece]) -> list[Kind]:
    """What each token of a text is: a word begins behind white space and control tokens, too."""
    found: list[Kind] = []
    before = b" "
    for piece in pieces:
        found.append(kind_of(piece, piece.control or before[-1:].isspace()))
        before = b" " if piece.control else piece.bytes
    return found


def word_at(pieces: Sequence[TokenPiece], place: int) -> range:
    """Which tokens are the word that the one at a place belongs to."""
    kinds = kinds_of(pieces)

    def goes_on(place: int) -> bool:
        own, before = kinds[place], kinds[place - 1]
        begins = own in ("word", "mark", "control") or pieces[place].bytes[:1].isspace()
        return not begins and before not in ("mark", "control")

    first, end = place, place + 1
    while first and goes_on(first):
        first -= 1
    while end < len(pieces) and goes_on(end):
        end += 1
    return range(first, end)


def tokens(pieces: Sequence[TokenPiece], width: int = 80, first: int = 0) -> View:
    """A text as its tokens, with why its letters are hard to see for a model.

    `first` is the place of the first one in a longer text.
    """
    plain = [piece for piece in pieces if not piece.control]
    text = b"".join(piece.bytes for piece in plain).decode("utf-8", "replace")
    sentence = (
        f"A model reads no letters: its text is cut into tokens, and each token is a number. Here"
        f" {count(len(text))} character{'s are' if len(text) != 1 else ' is'}"
        f" {token_count(len(plain))}"
    )
    sentence += f", {len(text) / len(plain):.1f} characters a token." if plain else "."
    lines = [*_flowing([visible_token(piece.bytes) for piece in pieces], width), ""]
    narrow = width < _NARROW
    table = f"{'#':>5} {'id':>8}  {'token':<{TOKEN_WIDTH}}  {'':<20} bytes"
    lines.append(f"{'#':>5} {'id':>6} kind, bytes" if narrow else table)
    for number, (piece, kind) in enumerate(zip(pieces, kinds_of(pieces), strict=True), first):
        words = _KIND_WORDS[kind]
        if narrow:
            lines += [f"{number:>5} {piece.id:>6} {words}", f"       {_hex(piece, width - 7)}"]
            continue
        shown = fit_token(piece.bytes, TOKEN_WIDTH)
        lines.append(
            f"{number:>5} {piece.id:>8}  {shown}  {words:<20} {_hex(piece, width - 56)}".rstrip()
        )
    return View("Tokens", sentence, tuple(lines), _letters(plain))


def written(pieces: Sequence[TokenPiece]) -> str:
    """How many tokens a text has, and what the last of them is, on one line."""
    last, length = pieces[-1], len(b"".join(one.bytes for one in pieces).decode("utf-8", "replace"))
    return (
        f"{token_count(len(pieces))}, {length / len(pieces):.1f} characters each · last"
        f" {visible_token(last.bytes)}: id {last.id}, {_KIND_WORDS[kinds_of(pieces[-2:])[-1]]},"
        f" {_hex(last, 24)}"
    )


def _hex(piece: TokenPiece, width: int) -> str:
    shown = "" if piece.control else piece.bytes.hex(" ")
    return shown if len(shown) <= width else f"{shown[: max(0, width - 2)].rpartition(' ')[0]} …"


def _letters(pieces: Sequence[TokenPiece]) -> str:
    """Why letters can't be counted in the word that is cut the most."""
    words: list[list[TokenPiece]] = []
    before: Kind = "mark"
    for kind, piece in zip(kinds_of(pieces), pieces, strict=True):
        if kind == "word":
            words.append([piece])
        elif kind == "inside" and before in ("word", "inside") and words:
            words[-1].append(piece)
        before = kind
    if not words or len(most := max(words, key=len)) == 1:
        return ""
    word = b"".join(piece.bytes for piece in most).decode("utf-8", "replace").strip()
    cut = "│".join(visible_token(piece.bytes) for piece in most)
    ids = ", ".join(str(piece.id) for piece in most)
    return (
        f'"{sanitise(word)}" has {len(word)} letters but {len(most)} tokens, {cut}: the model is'
        f" given the numbers {ids}. None of them says which letters are in it, so a question such"
        " as how many r a word has is hard for it."
    )


def _flowing(texts: Sequence[str], width: int) -> list[str]:
    """Tokens one after another, parted by │, in as many lines as it takes."""
    lines = [""]
    for text in texts:
        if lines[-1] and cell_len(lines[-1] + text) >= width:
            lines.append("")
        lines[-1] += (text + "│")[:width]
    return lines


def neighbors(found: Neighbors, width: int = 80) -> View:
    """The nearest embeddings."""
    word = visible_token(found.piece.bytes)
    most = found.neighbors[0].score if found.by == "dot" and found.neighbors else 1.0
    lines = [
        f"{number:>4}  {fit_token(one.piece.bytes, TOKEN_WIDTH)} {decimal(one.score, 3):>8}"
        f"  {bar(one.score / most if most else 0, _BAR)}"
        for number, one in enumerate(found.neighbors, 1)
    ]
    spaced = "with the space before it" if found.spaced else "as it stands"
    which = "input embeddings" if found.matrix == "input" else "output embeddings (the head's rows)"
    how = (
        "cosine: 1 points the same way, 0 has nothing in common"
        if found.by == "cosine"
        else "dot product: long rows score high whatever they mean"
    )
    return View(
        f"Near {word}",
        f"For the model {word} is a row of numbers, learned so that words used alike have rows that"
        " point the same way. These tokens' rows are the nearest.",
        tuple(lines),
        f"{which}; {how}. The token is {word} (id {found.piece.id}), {spaced}.",
    )


def analogy(found: Analogy, width: int = 80) -> View:
    """A sum of embeddings, and what is nearest to it."""
    asked = " ".join(
        f"{'+' if term.sign > 0 else '−'} {visible_token(term.piece.bytes)}" for term in found.terms
    ).removeprefix("+ ")
    lines = [
        f"{count(one.rank):>7}  {fit_token(one.piece.bytes, TOKEN_WIDTH)}"
        f" {decimal(one.score, 3):>8}  {bar(one.score, _BAR):<{_BAR}}"
        f"  {'one of the terms' if one.is_input else ''}"
        for one in found.results
    ]
    answer = next((one for one in found.results if not one.is_input), None)
    best = ""
    if answer is not None:
        best = f" Nearest, the terms left aside, is {visible_token(answer.piece.bytes)}."
    return View(
        sanitise(asked),
        f"Directions between embeddings carry meaning, so words can be added and taken away:"
        f" {asked}.{best}",
        tuple(lines),
        "Rank among all tokens, and cosine to the sum of the raw input embeddings. The terms"
        " themselves are ranked like all others: they are usually the nearest.",
    )


def similarity(found: Similarity, width: int = 80) -> View:
    """Two texts beside each other."""
    lines = [
        f"{name:<34} {decimal(value, 3):>7}  {bar(value, _BAR)}"
        for name, value in (
            ("mean of their embeddings", found.embedding),
            ("mean of their last hidden states", found.hidden),
        )
    ]
    return View(
        "Similarity",
        "How alike two texts are to the model: before it has read anything (which words they have),"
        " and after all layers (what it made of them).",
        tuple(lines),
        "Cosines. Hidden states of most models point the same way to begin with, so that even"
        " unlike texts score high there; compare pairs with each other.",
    )


def word_map(
    found: EmbeddingMap, width: int = 80, height: int = MAP_HEIGHT, mark: int | None = None
) -> View:
    """Words in two dimensions; the `mark`-th of them from the left is pointed at."""
    points = [(point.x, point.y, sanitise(point.text)) for point in found.points]
    rows, places = scatter(points, width, height)
    if mark is not None:
        number = sorted(places, key=lambda one: points[one][:2])[mark % len(points)]
        x, y, text = points[number]
        column, row = places[number]
        rows[row] = f"{rows[row][:column]}◉{rows[row][column + 1 :]}"
        others = [one for one in points if one is not points[number]]
        near = min(others, key=lambda one: math.hypot(one[0] - x, one[1] - y))[2]
        told = f"◉ {text}, id {found.points[number].piece.id}: {decimal(x)}, {decimal(y)}"
        rows.append(f"{told}; nearest here is {near}"[:width])
    if found.method == "pca":
        shares = " and ".join(percent(share) for share in found.explained)
        remark = (
            f"Principal components of the input embeddings: the axes hold {shares} of what tells"
            " these words apart; the rest can't be seen in two dimensions."
        )
    else:
        remark = "t-SNE: who stands near whom is kept, distances and axes mean nothing."
    return View(
        "Map of words",
        "Every word is a point in a space of hundreds of dimensions. This is its shadow in two:"
        " words that stand near each other are used alike.",
        tuple(rows),
        remark,
    )


def shares_without_first(row: Sequence[float]) -> list[float]:
    """What each token but the first got of the attention that didn't go there; 0 for the first."""
    rest = 1 - row[0]
    return [0.0, *(one / rest if rest > 0 else 0.0 for one in row[1:])]


def attention(found: Attention, width: int = 80, *, most: int = _MOST_LOOKED_AT) -> View:
    """Which tokens one token looked at, the `most` looked at; with all rows, the heat map."""
    if len(found.rows) > 1:
        return heat_map(found, width)
    row = found.rows[0]
    word = visible_token(found.tokens[found.token].bytes)
    narrow = width < _NARROW
    others = shares_without_first(row)
    shown = sorted(sorted(range(len(row)), key=lambda place: -row[place])[: most // (1 + narrow)])
    largest = max(others) or 1.0
    lines = [f"{'#':>5}  {'token':<{TOKEN_WIDTH}} {'share':>8}  {'':<16}  without the first"]
    if narrow:
        lines = [f"{'#':>5} {'token':<10} {'share':>7} {'w/o 1st':>8}"]
    for place in shown:
        name, share = found.tokens[place].bytes, percent(row[place])
        other = f"{percent(others[place]):>8}" if place else ""
        mark = "  ←" if place == found.token else ""
        if narrow:
            lines.append(f"{place:>5} {fit_token(name, 10)} {share:>7} {other}")
            continue
        lines.append(
            f"{place:>5}  {fit_token(name, TOKEN_WIDTH)} {share:>8}  {bar(row[place], 16):<16}"
            f"  {other}  {bar(others[place] / largest, 8)}{mark}"
        )
    remark = f"{_whose(found)}; the shares sum to 1."
    if len(shown) < len(row):
        remark += f" {count(len(row) - len(shown))} tokens with less are left out."
    if row[0] > 0.3:
        remark += (
            f" {percent(row[0])} rest on the very first token: heads look there when they have"
            " nothing to fetch. The last column shares out the rest."
        )
    return View(
        f"What {word} looked at",
        f"To understand {word} the model fetches something from the tokens before it and from"
        " itself. This is how much of its attention each of them got.",
        tuple(lines),
        remark,
    )


def _whose(found: Attention) -> str:
    heads = "the mean of its heads" if found.head is None else f"head {found.head}"
    return f"Layer {found.layer}, {heads}"


def heat_map(found: Attention, width: int, mark: int | None = None) -> View:
    """All tokens against all, as many as fit; with a `mark`, those around that token."""
    names = [fit_token(piece.bytes, 12) for piece in found.tokens]
    room = max(8, width - 20)
    end = len(names) if mark is None else min(len(names), max(mark + _AROUND + 1, room))
    start = max(0, end - room)
    numbers = range(start, end)
    lines = []
    if len(names) >= 10:
        lines.append(" " * 19 + "".join(str(one // 10 % 10) for one in numbers))
    lines.append(" " * 19 + "".join(str(one % 10) for one in numbers))
    looked = ""
    for place in numbers:
        row = found.rows[place]
        if mark is not None and abs(place - mark) > _AROUND:
            continue
        cells = "".join(shade(row[other]) if other <= place else " " for other in numbers)
        sign = "›" if place == mark else " "
        lines.append(f"{sign}{place:>4} {names[place]} {cells}".rstrip())
        if place == mark:
            best = sorted(range(place + 1), key=lambda other: -row[other])[:4]
            told = ", ".join(f"{names[other].rstrip()} {percent(row[other])}" for other in best)
            looked = f" › {names[place].rstrip()} looks most at {told}."
    cut = f" Tokens {start} to {end - 1} of {len(names)} fit here." if len(names) > room else ""
    return View(
        "Who looks at whom",
        "Each line is a token; each column a token that it may look at: itself and what stands"
        " before it, never what comes after. The darker, the more of its attention goes there.",
        tuple(lines),
        f"{_whose(found)}. {SHADES_TOLD}.{looked}{cut}",
    )


_HABITS: tuple[tuple[str, str, Callable[[HeadProfile], float]], ...] = (
    ("first", "the very first token", lambda one: one.first),
    ("previous", "the token before", lambda one: one.previous),
    ("same", "earlier tokens of the same id", lambda one: one.same),
    ("induction", "what followed the same token earlier", lambda one: one.induction),
    ("entropy", "how widely it looks", lambda one: one.entropy_bits),
)


def head_profiles(found: Sequence[HeadProfile], piece: TokenPiece, width: int = 80) -> View:
    """What every head does at one token: a grid for each habit, and the entropies."""
    layers = max(one.layer for one in found) + 1
    heads = max(one.head for one in found) + 1
    by_place = {(one.layer, one.head): one for one in found}
    word = visible_token(piece.bytes)
    lines: list[str] = []
    for name, words, measure in _HABITS:
        best = max(found, key=measure)
        bits = name == "entropy"
        value = f"{decimal(measure(best), 1)} bit" if bits else percent(measure(best))
        told = f"most {value} (layer {best.layer} head {best.head})"
        lines.append(f"{name:<10} {words}; {told if measure(best) else 'nothing here'}")
    widest = max(one.entropy_bits for one in found) or 1.0
    wide = max(heads, 9) + 2
    fitting = max(1, (width - 5) // wide)
    for start in range(0, len(_HABITS), fitting):
        habits = _HABITS[start : start + fitting]
        lines += ["", f"{'layer':>5}  {''.join(f'{name:<{wide}}' for name, _, _ in habits)}"]
        for layer in range(layers):
            row = [by_place[layer, head] for head in range(heads) if (layer, head) in by_place]
            cells = ""
            for name, _, measure in habits:
                most = widest if name == "entropy" else 1.0
                cells += f"{''.join(shade(measure(one) / most) for one in row):<{wide}}"
            lines.append(f"{layer:>5}  {cells}"[:width])
    return View(
        f"The heads at {word}",
        f"Each layer has {heads} heads, and each looks for something of its own. A column of shades"
        f" is a head, a line a layer: how much of its attention at {word} follows a habit.",
        tuple(lines),
        f"{SHADES_TOLD}. Entropies are shaded against the largest; 0 looks at one token alone.",
    )


def lens(found: Lens, width: int = 80) -> View:
    """The prediction after every layer."""
    word = visible_token(found.tokens[found.token].bytes)
    last = found.layers[-1]
    winner = visible_token(last.top[0].piece.bytes) if last.top else "?"
    narrow = width < _NARROW
    room, most_tops = (8, 1) if narrow else (TOKEN_WIDTH, 3)
    lines = [f"{'layer':>7} {'rank':>7} {'bits':>7}  {'':<12}  most probable"]
    if narrow:
        lines = [f"{'layer':>6} {'rank':>6} {'bits':>5}  most probable"]
    most = max((one.kl_bits for one in found.layers), default=0.0) or 1.0
    for one in found.layers:
        name = "embed" if one.layer == 0 else "output" if one is last else str(one.layer)
        tops = "  ".join(
            f"{fit_token(two.piece.bytes, room).rstrip()} {percent(two.score)}"
            for two in one.top[:most_tops]
        )
        if narrow:
            lines.append(f"{name:>6} {count(one.rank):>6} {one.kl_bits:>5.1f}  {tops}"[:width])
            continue
        lines.append(
            f"{name:>7} {count(one.rank):>7} {one.kl_bits:>7.2f}  {bar(one.kl_bits / most, 12):<12}"
            f"  {tops}"[:width]
        )
    leads = next((one.layer for one in found.layers if one.rank == 1), None)
    stays = last.layer
    for one in reversed(found.layers):
        if one.rank != 1:
            break
        stays = one.layer
    told = ""
    if leads is not None:
        told = f" {winner} leads first after layer {leads}"
        if leads == stays == last.layer:
            told = f" {winner} takes the lead only in the last layer"
        told += "." if leads == stays else f" and for good from layer {stays} on."
    return View(
        f"Layer by layer, behind {word}",
        f"What would the model say if it stopped after each layer? At the end it says {winner}."
        f"{told}",
        tuple(lines),
        f"Logit lens: the state after the layer, through the final norm and the head. rank: where"
        f" {winner} stands there. bits: how far that prediction is from the final one (KL)."
        " Layer 0 is the embedding; the last line is the model's own output.",
    )


def attribution(found: Attribution, width: int = 80) -> View:
    """Which parts of the model push one token."""
    target = visible_token(found.target.bytes)
    word = visible_token(found.tokens[found.token].bytes)
    parts = list(found.parts)
    lines = []
    most = max((abs(part.value) for part in parts), default=1.0)
    by_head = any(part.head is not None for part in parts)
    if by_head:
        parts = sorted(parts, key=lambda part: -abs(part.value))[:_MOST_ROWS]
    for part in parts:
        where = "" if part.layer < 0 else f"layer {part.layer}"
        kind = part.kind if part.head is None else f"head {part.head}"
        lines.append(
            f"{where:<9} {kind:<10} {decimal(part.value):>8}  "
            f"{signed_bar(part.value, most, 2 * _BAR + 1)}"
        )
    lines.append(f"{'':<9} {'sum':<10} {decimal(found.sum):>8}")
    lines.append(f"{'':<9} {'logit':<10} {decimal(found.logit):>8}  the model's own")
    left = len(found.parts) - len(parts)
    return View(
        f"What made {target}",
        f"Every part of the model adds something to the score of {target} behind {word}: to the"
        " right of the line it speaks for it, to the left against it.",
        tuple(lines),
        "Direct logit attribution, with the final norm's scale as it is at this token: the parts"
        " add up to the logit."
        + (f" {left} smaller ones are left out of the list." if left else ""),
    )


def filters(stages: Sequence[StageTrace], record: TokenRecord, width: int = 80) -> View:
    """What each stage of the sampler left, and what it cut of the first candidates.

    Args:
        stages: with the share of the token that was taken.
        record: that token, and what it was chosen from.
        width: characters a line.
    """
    word = visible_token(record.bytes)
    narrow = width < _NARROW
    sizes = (10, 6, 6, 7) if narrow else (18, 9, 12, 20)
    rows = [("stage", "set to", "left", "share")]
    if not narrow:
        name = fit_token(record.bytes, 11).rstrip()
        rows = [("stage", "setting", "tokens left", f"share of {name}")]
    for stage in stages:
        mine = next((one.prob for one in stage.tokens if one.id == record.id), math.nan)
        setting = "" if stage.setting is None else setting_text(stage.stage, stage.setting)
        rows.append((stage_name(stage.stage), setting, count(stage.alive), percent(mine)))
    lines = [
        f"{name:<{sizes[0]}} {setting:>{sizes[1]}} {left:>{sizes[2]}} {share:>{sizes[3]}}"
        for name, setting, left, share in rows
    ]
    for one in record.candidates[:_FIRST]:
        if one.removed_by is not None:
            if len(lines) == len(rows):
                lines.append("")
            name = visible_token(one.bytes) if narrow else fit_token(one.bytes, TOKEN_WIDTH)
            told = f"{name} {cut_by(one.removed_by)}: {shortfall(one.removed_by)}"
            lines += textwrap.wrap(told, width)
    return View(
        f"What was cut before {word}",
        "The tail of thousands of unlikely tokens would now and then be drawn and spoil the text;"
        " filters cut it away, one after another, and the rest is scaled up to 100 %.",
        tuple(lines),
        "Only stages that are on are listed. F3 on a token shows all of it.",
    )


def positions(found: Positions, width: int = 80) -> View:
    """How the order of tokens is known."""
    title = f"Position {found.position}"
    if found.kind == "none":
        return View(
            title,
            "This model tells its tokens' order by no table and no rotation: it reads them one by"
            " one, or weighs them by distance alone.",
            (),
        )
    if found.kind == "learned":
        return View(
            title,
            "This model has learned a row of numbers for every position and adds it to the token's"
            " own. How alike the row of this position is to others:",
            tuple(
                f"{place:>7}  {decimal(value, 3):>7}  {bar(value, _BAR)}"
                for place, value in found.falloff
            ),
            "Cosine of the rows of the table of positions.",
        )
    lines = [f"{'pair':>5} {'turned by':>14} {'one turn takes':>18}"]
    pairs = len(found.angles)
    step = max(1, math.ceil(pairs / 12))
    for pair in range(0, pairs, step):
        degrees = math.degrees(found.angles[pair]) % 360
        clock = "↑↗→↘↓↙←↖"[round(degrees / 45) % 8]
        lines.append(
            f"{pair:>5} {degrees:>11.1f}° {clock} {rounded(found.wavelengths[pair]):>11} tokens"
        )
    lines += ["", "distance   likeness of a query and a key that are the same"]
    lines += [
        f"{distance:>8}  {decimal(value, 3):>7}  {signed_bar(value, 1.0, 2 * _BAR + 1)}"
        for distance, value in found.falloff
    ]
    return View(
        title,
        f"Order is told by turning: each pair of numbers in a query and a key is a hand that is"
        f" turned further at every position, some fast, some slowly. At position {found.position}"
        " they stand like this; two tokens compare their hands and so know how far apart they are.",
        tuple(lines),
        "Rotary position embedding, from the model's own frequencies"
        + (f"; one of every {step} of the {pairs} pairs." if step > 1 else "."),
    )


def anatomy(found: Anatomy, width: int = 80, *, measured: float | None = None) -> View:
    """What the model is made of.

    Args:
        found: what its file says.
        width: characters a line.
        measured: how fast it writes here, in tokens a second, where that was measured.
    """
    facts = [
        ("architecture", found.architecture),
        ("layers", count(found.layers)),
        ("heads", f"{found.heads}, for keys and values {found.kv_heads}"),
        ("width", f"{count(found.width)}, MLP {count(found.mlp_width)}, head {found.head_width}"),
        ("vocabulary", count(found.vocabulary)),
        ("context", f"{count(found.context)} tokens"),
        ("position", found.position),
        ("activation", found.activation),
        ("norm", found.norm),
        ("weights", found.weight_format),
        ("KV cache", f"{size(found.kv_bytes_per_token)} a token"),
    ]
    lines = [f"{name:<13} {sanitise(value)}" for name, value in facts]
    lines.append("")
    for part in found.parts:
        name = {"mlp": "MLP", "norm": "norms"}.get(part.name, part.name)
        share = part.parameters / found.parameters if found.parameters else 0.0
        lines.append(
            f"{name:<13} {count(part.parameters):>13} parameters"
            f" {size(part.bytes):>9}  {percent(share):>7} {bar(share, 16)}"
        )
    total = sum(part.bytes for part in found.parts)
    lines.append(f"{'all':<13} {count(found.parameters):>13} parameters {size(total):>9}")
    tied = " The head is the embedding once more (tied) and counted once." if found.tied else ""
    remark = (
        f"One token takes {rounded(found.operations_per_token / 1e6)} million operations and reads"
        f" {size(found.bytes_per_token)} of weights from memory.{tied}"
    )
    if found.bytes_per_token:
        limit = found.memory_bytes_per_second / found.bytes_per_token
        remark += (
            f" Memory here gives {size(round(found.memory_bytes_per_second))} a second (measured"
            f" just now): at most {rounded(limit)} tokens a second could be written"
        )
        remark += f"; the last were written at {measured:.1f}." if measured else "."
    return View(
        "Anatomy",
        f"The model is {count(found.parameters)} numbers, learned from text. Each token passes"
        f" through {found.layers} layers: attention fetches from other tokens, the MLP works on"
        " what it fetched.",
        tuple(lines),
        remark,
    )


def cache_run(found: CacheRun, width: int = 80, *, turn: str = "") -> View:
    """The KV cache, measured with and without; `turn` tells of the last prompt."""
    most = max((point.seconds_without for point in found.points), default=1.0)
    lines = [f"{'tokens':>7} {'passes':>8} {'with':>9}  {'passes':>8} {'without':>9}"]
    for point in found.points:
        lines.append(
            f"{point.tokens:>7} {count(point.passes_with):>8} {point.seconds_with:>7.2f} s"
            f"  {count(point.passes_without):>8} {point.seconds_without:>7.2f} s"
        )
        lines.append(f"{'with':>17} {bar(point.seconds_with / most, width - 20)}".rstrip())
        lines.append(f"{'without':>17} {bar(point.seconds_without / most, width - 20)}".rstrip())
    last = found.points[-1] if found.points else None
    gain = (
        f" Here {last.tokens} tokens came {last.seconds_without / last.seconds_with:.1f} times"
        " faster."
        if (last and last.seconds_with > 0)
        else ""
    )
    return View(
        "KV cache",
        "What a layer made of earlier tokens (their keys and values) is kept, so that a new token"
        f" is read once; without it the whole text would be read again for every token.{gain}",
        tuple(lines),
        f"Measured now, on the runtime that writes: n token passes against n(n+1)/2."
        f" The cache takes {size(found.kv_bytes_per_token)} for each token. {turn}".rstrip(),
    )
