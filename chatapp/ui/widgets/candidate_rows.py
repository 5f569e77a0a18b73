"""The candidate table as text: which columns fit, and what stands in each cell.

Nothing here knows about widgets; `candidates` shows these rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from chatapp.chat.inspection import CandidatePage
from chatapp.chat.numbers import UNKNOWN, count, decimal, percent, percent_figure, temperature
from chatapp.chat.record import Candidate, TokenRecord
from chatapp.chat.served import id_words
from chatapp.explain.cells import fit, fit_token
from chatapp.explain.plots import bar
from chatapp.explain.removal import cut_by, cut_by_variants, shortfall
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Parts

Column = Literal["model", "T", "final"]
"""The three probabilities of a candidate."""

COLUMNS: tuple[Column, ...] = get_args(Column)

NO_TRACE = "as the server gives it; no trace"
"""What is said of a token whose final probability a server keeps to itself."""

MARKS = 3
"""The first cells of a row: the row cursor, whether it was taken or cut, a blank."""

TAKEN, CUT, CURSOR = "●", "×", "›"

_FIGURE = 6
"""As wide as the widest figure, >99.99."""
_NARROW_FIGURE = 5
"""Without the last digit of that one."""
_SUM_DUST = 1e-6
"""So far from 1 a sum of rounded probabilities may be."""
_WIDE_FROM = 54
_BAR_AT_MOST = 40
_ONE_LINE_DETAIL_FROM = 76
"""From which width on "cut by …: needed …, had …" stands on one line."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many cells each part of a row has, from left to right."""

    token: int
    figure: int
    """Each column of figures, with the blanks before it."""
    columns: tuple[Column, ...]
    bar: int
    """Without the blank before it; 0 where there is no room for one."""

    @classmethod
    def of(cls, width: int, followed: Column, *, brief: bool = False) -> Layout:
        """The columns that fit; a narrow or a brief table keeps the one that the bars follow."""
        wide = width >= _WIDE_FROM
        figure = _FIGURE + 2 if wide else _NARROW_FIGURE + 1
        all_fit = width >= MARKS + 5 + 3 * figure and not brief
        columns = COLUMNS if all_fit else (followed,)
        rest = width - MARKS - len(columns) * figure
        if rest < 6:
            return cls(max(rest, 0), figure if width >= MARKS + figure else 0, columns, 0)
        token = min(max(rest * 2 // 5, min(rest - 6, 8)), 24)
        return cls(token, figure, columns, min(rest - token - 1, _BAR_AT_MOST))


@dataclass(frozen=True, slots=True)
class Frame:
    """Which lines stand around the candidates."""

    head: bool
    foot: tuple[str, ...]
    """Their names, from top to bottom."""

    @classmethod
    def of(cls, height: int, width: int, *, brief: bool = False) -> Frame:
        """As much as fits while some candidates stay in sight, the more the less it matters."""
        if brief:
            return cls(height >= 3, ("others",) if height >= 4 else ())
        details = 2 if width >= _ONE_LINE_DETAIL_FROM else 3
        wanted = (
            (2, ("others",)),
            (3, ("sum",)),
            (5, tuple(f"detail{number}" for number in range(details))),
            (6, ("legend",)),
        )
        with_head = height >= 3
        spare = height - int(with_head)
        foot: list[str] = []
        for rows, names in wanted:
            if spare - len(names) < rows:
                break
            foot += names
            spare -= len(names)
        return cls(with_head, tuple(foot))

    @property
    def lines(self) -> int:
        """How many lines they take."""
        return int(self.head) + len(self.foot)


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row."""

    marks: str
    token: str
    figures: tuple[str, ...]
    bar: str
    rest: str = ""
    """What the model's own bar has beyond `bar`, to be drawn pale."""
    note: str = ""
    """What stands beside or in place of the bar: what cut the candidate."""

    def parts(self, style: str, bar_style: str = "$primary") -> Parts:
        """The whole row, its words and figures in a style."""
        parts = [(self.marks + self.token + "".join(self.figures), style)]
        if self.bar or self.rest:
            parts += [(" ", style), (self.bar, bar_style), (self.rest, "$primary 35%")]
        if self.note:
            parts.append((f" {self.note}", MUTED))
        return parts


def probability(candidate: Candidate | TokenRecord, column: Column) -> float:
    """One of the three probabilities of a candidate, or of a token."""
    match column:
        case "model":
            return candidate.model_prob
        case "T":
            return candidate.tempered_prob
        case "final":
            return candidate.prob


def told_column(record: TokenRecord) -> Column:
    """The last of the three that is known: a server tells one, or none."""
    return next(
        (name for name in reversed(COLUMNS) if not math.isnan(probability(record, name))), "final"
    )


def rank_words(one: Candidate | TokenRecord, record: TokenRecord) -> str:
    """A token's rank; one that a server does not tell lies behind those that it lists."""
    if one.rank:
        return count(one.rank)
    known = not math.isnan(probability(record, told_column(record)))
    return f">{count(sum(other.rank > 0 for other in record.candidates))}" if known else UNKNOWN


def head(record: TokenRecord, layout: Layout, followed: Column) -> Parts:
    """The names of the columns; a narrow table gives the unit in its last row, the sum."""
    names = {"model": "model", "T": f"T {temperature(record.temperature)}", "final": "final"}
    unit = " %" if layout.figure > _FIGURE else ""
    parts = [(" " * MARKS + fit("token", layout.token), MUTED)]
    for column in layout.columns:
        text = _right(names[column] + unit, layout.figure)
        word = text.lstrip()
        parts.append((text[: len(text) - len(word)], MUTED))
        parts.append((word, "underline $foreground" if column == followed else MUTED))
    name = names[followed]
    bar_name = f"bar: {name}" if layout.bar >= 5 + len(name) else name
    return [*parts, (f" {fit(bar_name, layout.bar)}", MUTED)]


def candidate_row(
    candidate: Candidate,
    layout: Layout,
    followed: Column,
    *,
    taken: bool,
    under_cursor: bool,
    above: Candidate | None = None,
) -> Row:
    """One candidate, with the bar that is followed over that of the model.

    What it was cut by stands where the bars leave room, on the first of all rows that were cut so.

    Args:
        candidate: whose row it is.
        layout: the cells of its parts.
        followed: which probability the bar shows.
        taken: whether it is the token of the reply.
        under_cursor: whether the row cursor stands on it.
        above: the candidate of the row above; None for the first row in view.
    """
    state = TAKEN if taken else CUT if candidate.removed_by else " "
    drawn = bar(probability(candidate, followed), layout.bar)
    rest = bar(candidate.model_prob, layout.bar)[len(drawn) :]
    told = above is not None and above.removed_by is not None and candidate.removed_by is not None
    told = told and _stage(above) == _stage(candidate)
    note = "" if told else _note(candidate, layout.bar - len(drawn + rest) - 1)
    if not told and note in ("", "cut"):  # no room beside the pale bar: the reason matters more
        note = _note(candidate, layout.bar - len(drawn) - (1 if drawn else 0))
        rest = "" if note else rest
    return Row(
        marks=f"{CURSOR if under_cursor else ' '}{state} ",
        token=fit_token(candidate.bytes, layout.token),
        figures=tuple(
            _figure(probability(candidate, column), layout.figure) for column in layout.columns
        ),
        bar=drawn,
        rest=rest,
        note=note,
    )


def _stage(candidate: Candidate | None) -> str:
    removal = candidate.removed_by if candidate is not None else None
    return removal.stage if removal is not None else ""


def _others(record: TokenRecord) -> dict[Column, float]:
    return {
        "model": record.other_model_prob,
        "T": record.other_tempered_prob,
        "final": record.other_prob,
    }


def others_row(record: TokenRecord, layout: Layout, followed: Column) -> Row:
    """The rest of the vocabulary as one row."""
    sums = _others(record)
    return Row(
        marks="",
        token=_first_that_fits(
            (f"   {count(record.other_count)} others", f"  +{count(record.other_count)}")
            if record.other_count
            else ("   all others", "  +"),
            MARKS + layout.token,
        ),
        figures=tuple(_figure(sums[column], layout.figure) for column in layout.columns),
        bar=bar(sums[followed], layout.bar),
    )


def sum_row(record: TokenRecord, layout: Layout) -> Row:
    """Candidates and others together: 100 % in every column, or the fault is there to be seen."""
    everything = count(len(record.candidates) + record.other_count) if record.other_count else "all"
    others = _others(record)
    figures: list[str] = []
    for column in layout.columns:
        parts = [probability(candidate, column) for candidate in record.candidates]
        total = math.fsum([*parts, others[column]])
        if abs(total - 1) <= _SUM_DUST:
            total = 1.0
        with_unit = percent(total)
        fits = len(with_unit) < layout.figure
        figures.append(with_unit.rjust(layout.figure) if fits else _figure(total, layout.figure))
    return Row(
        marks="",
        token=_first_that_fits(
            (f"   {everything} in all", f"  Σ {everything}", f"Σ {everything}", "Σ"),
            MARKS + layout.token,
        ),
        figures=tuple(figures),
        bar="",
    )


def without_gap(candidates: Sequence[Candidate]) -> int:
    """How many candidates at the start are the most probable ones; a token that was taken from
    further down stands after them."""
    last = candidates[-1].rank if candidates else 0
    return len(candidates) - int(last > len(candidates))


def with_page(record: TokenRecord, page: CandidatePage, places: int) -> TokenRecord:
    """The record with more of the vocabulary listed, and less of it among the others."""
    listed = record.candidates[:places]
    known = {candidate.id for candidate in page.candidates}
    extra = tuple(one for one in record.candidates[places:] if one.id not in known)
    candidates = (*listed, *page.candidates, *extra)
    rest = page.vocabulary - len(candidates)

    def others(probabilities: Iterable[float]) -> float:
        return max(0.0, 1.0 - math.fsum(probabilities)) if rest else 0.0

    return replace(
        record,
        candidates=candidates,
        other_count=rest,
        other_model_prob=others(one.model_prob for one in candidates),
        other_tempered_prob=others(one.tempered_prob for one in candidates),
        other_prob=others(one.prob for one in candidates),
    )


def detail(
    record: TokenRecord, candidate: Candidate, width: int, *, taken: bool
) -> tuple[str, str, str]:
    """Three lines about the candidate under the row cursor; the last may be empty."""
    rank = rank_words(candidate, record)
    first = f"{id_words(candidate.id)} · rank {rank} · ln p {decimal(candidate.logprob)}"
    room = (width - len(first) - 3) // 3  # two digits and a blank for each byte
    if 0 < len(candidate.bytes) <= room:
        first += f" · {candidate.bytes.hex(' ')}"
    how = "taken" if record.draw is None else f"taken: random number {record.draw:.4f}"
    if removal := candidate.removed_by:
        cut = f"{cut_by(removal)}:"
        return first, f"chosen by you, though {cut}" if taken else cut, shortfall(removal)
    if math.isnan(candidate.prob):
        return first, "taken" if taken else "", NO_TRACE
    return first, how if taken else "kept by every stage", ""


def _note(candidate: Candidate, room: int) -> str:
    if candidate.removed_by is None:
        return ""
    return next((text for text in cut_by_variants(candidate.removed_by) if len(text) <= room), "")


def _figure(probability: float, width: int) -> str:
    """A figure at the right of its cells, with one digit less where it would fill them all."""
    text = percent_figure(probability)
    return _right(">99.9" if text == ">99.99" and width <= _FIGURE else text, width)


def _right(text: str, width: int) -> str:
    """Text at the right of its cells; a number that doesn't fit is left out, never cut."""
    return (text if len(text) <= width else "…").rjust(width) if width > 0 else ""


def _first_that_fits(texts: tuple[str, ...], width: int) -> str:
    found = next((text for text in texts if len(text) <= width), texts[-1])
    return fit(found, width)
