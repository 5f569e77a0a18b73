"""The token panel: everything known about the token under the cursor, on pages.

The first page, top to bottom: what the token is, its three probabilities side by side, its rank and
how unsure the model was; the candidates; the curves of P(end) and entropy along the reply. It is
refreshed with every batch of a streaming reply, so its parts draw their lines themselves. The other
pages are views of what happens inside, made once the cursor rests.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from chatapp.chat.numbers import NO_BREAK_SPACE, UNKNOWN, bits, count, percent, temperature
from chatapp.chat.record import TokenRecord
from chatapp.chat.served import entropy_at_least, id_words
from chatapp.explain.cells import fit, fit_token
from chatapp.explain.plots import bar
from chatapp.explain.removal import cut_by
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Parts, strip_of
from chatapp.ui.widgets.candidate_rows import NO_TRACE, probability, rank_words, told_column
from chatapp.ui.widgets.candidates import CandidateList
from chatapp.ui.widgets.page_view import PageView
from chatapp.ui.widgets.sparkline import Sparklines

NOTHING = (
    "No tokens yet. Each one the model writes will be shown here, with what it was chosen from."
)

TABS = ("candidates", "trace", "attention", "layers", "token")
"""The pages of the panel."""

NEXT = "next token: nothing taken yet"
"""What stands in the place of the token while a reply is held."""

_TOKEN = "bold $text-accent"
_VALUE = "bold $foreground"

_ONE_LINE_FROM = 44
"""From which width on the three probabilities stand beside their names."""
_SENTENCE_FROM = 40
"""From which width on a sentence takes three lines at most."""
_WIDE_FROM = 54
"""From which width on the figures need fewer lines."""
_COMPACT_BELOW = 19
"""Below which height the panel leaves out what is only good to have."""
_AIRY_FROM = 30
"""From which height on blank lines part the sections."""
_CURVES_FROM = 10
"""From which height on there is room for the curves."""


class TokenSummary(Widget):
    """One token in a few lines."""

    DEFAULT_CSS = "TokenSummary { height: auto; }"

    compact: reactive[bool] = reactive(False, layout=True)
    """Whether lines are scarce."""
    brief: reactive[bool] = reactive(False, layout=True)
    """Whether the token, its share and a sentence are enough."""

    _record: TokenRecord | None = None
    _total = 0
    _title_words = ""
    _taken = True

    def show(
        self, record: TokenRecord | None, total: int, *, taken: bool = True, words: str = ""
    ) -> None:
        """Show a token of a reply that has so many.

        Args:
            record: the token; None where there is none yet.
            total: how many tokens there are.
            taken: False for a step at which nothing is taken yet.
            words: what the numbers are, in place of the token's position.
        """
        resized = (record is None, taken) != (self._record is None, self._taken)
        self._record = record
        self._total = total
        self._taken = taken
        self._title_words = words
        self.refresh(layout=resized)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """As many lines as the width asks for, whatever the numbers are."""
        if self._record is None:
            return 3
        if self._taken and self.brief:
            return 2 + (4 if width < _SENTENCE_FROM else 3 if width < _WIDE_FROM else 2)
        return len(self._lines(width))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        lines = self._lines(width)
        return strip_of(lines[y] if y < len(lines) else (), width, self.visual_style)

    def _lines(self, width: int) -> list[Parts]:
        record = self._record
        if record is None:
            return [[(row, MUTED)] for row in textwrap.wrap(NOTHING, max(width, 1))]
        if not self._taken:
            return [[(fit(NEXT, width), _TOKEN)], _joined(_next_figures(record, width))]
        title = self._title(record, width)
        if self.brief:
            known = probability(record, told_column(record))
            share = percent(known)
            drawn = bar(known, width - len(share) - 1)
            words = how_chosen(record).replace(" %", f"{NO_BREAK_SPACE}%")
            sentence = textwrap.wrap(words, max(width, 1))
            return [
                title,
                [(f"{share} ", _VALUE), (drawn, "$primary")],
                *([(row, MUTED)] for row in sentence),
            ]
        figures = _figures(record, width, compact=self.compact)
        return [title, *_probabilities(record, width), *map(_joined, figures)]

    def _title(self, record: TokenRecord, width: int) -> Parts:
        place = f"token {count(record.index + 1)}"
        if width >= _ONE_LINE_FROM:
            place += f" of {count(self._total)}"
        if self._title_words:
            place = self._title_words
        id_text = id_words(record.id)
        room = width - len(place) - len(id_text) - 4
        shown = fit_token(record.bytes, max(room, 1)).rstrip(" ")
        gap = " " * max(width - len(place) - 2 - cell_len(shown) - len(id_text), 1)
        return [(f"{place}  ", MUTED), (shown, _TOKEN), (gap + id_text, MUTED)]


def _probabilities(record: TokenRecord, width: int) -> list[Parts]:
    """The three of them on one line, or their names on one and the values on the next."""
    pairs = (
        ("model", percent(record.model_prob)),
        (f"T {temperature(record.temperature)}", percent(record.tempered_prob)),
        ("final", percent(record.prob)),
    )
    cell = width // 3
    if width < _ONE_LINE_FROM:
        return [[(fit(pair[y], cell), (MUTED, _VALUE)[y]) for pair in pairs] for y in range(2)]
    parts: list[tuple[str, str]] = []
    for name, value in pairs:
        room = max(cell - len(name) - 1, 0)
        parts += [(f"{name} ", MUTED), (value.ljust(room), _VALUE)]
    return [parts]


def _joined(figures: Sequence[tuple[str, str]]) -> Parts:
    parts: list[tuple[str, str]] = []
    for name, value in figures:
        parts += [(" · " if parts else "", MUTED), (f"{name} ", MUTED), (value, "")]
    return parts


def how_chosen(record: TokenRecord) -> str:
    """How a token came to be, in a sentence for someone who has never seen a model."""
    if math.isnan(record.prob):
        match told_column(record):
            case "model":
                return f"Model probability {NO_TRACE} of what temperature and cuts made of it."
            case "T":
                return f"Probability after penalties and temperature {NO_TRACE} of the cuts."
            case "final":
                return "The server tells no probability of this token."
    model = f"The model gave it {percent(record.model_prob)}"
    if math.isnan(record.final_entropy_bits):  # tried, or given: nothing was drawn with these
        return f"{model}; the settings make that {percent(record.prob)}."
    taken = next((one for one in record.candidates if one.id == record.id), None)
    if taken is not None and taken.removed_by is not None:
        return f"{model}. It was chosen by hand: by itself {cut_by(taken.removed_by)}."
    if record.temperature == 0:
        first = "its first choice, and" if record.rank == 1 else "what stands first once all rules"
        rest = " at temperature 0 that is always taken." if record.rank == 1 else " have acted."
        return f"{model}: {first}{rest}"
    if record.draw is None:
        if record.prob == 1:
            return f"{model}; once unlikely tokens were cut, nothing else was left."
        return f"{model}; the settings make that {percent(record.prob)}. No random number chose it."
    return (
        f"{model}; temperature and cuts make that {percent(record.prob)}."
        f" A random number ({record.draw:.4f}) chose it."
    )


def _figures(record: TokenRecord, width: int, *, compact: bool) -> list[list[tuple[str, str]]]:
    """Names and values of the other numbers, in lines; how many depends on the width alone."""
    rank = ("rank", rank_words(record, record))
    surprisal = ("surprisal", bits(record.surprisal_bits))
    entropy = ("entropy", _entropy(record))
    final = ("final", bits(record.final_entropy_bits))
    end = ("P(end)", percent(record.p_end))
    drawn = "none" if record.draw is None else f"{record.draw:.4f}"
    draw = ("random number", UNKNOWN if math.isnan(record.prob) else drawn)
    if width >= _WIDE_FROM:
        return [[rank, surprisal, end], [entropy, final, draw]]
    if compact:
        return [[rank, surprisal], [entropy, end]]
    return [[rank, surprisal], [entropy, final], [end, draw]]


def _entropy(record: TokenRecord) -> str:
    bound = entropy_at_least(record)
    if not math.isnan(record.entropy_bits) or math.isnan(bound):
        return bits(record.entropy_bits)
    return f"≥ {bits(bound)}"


def _next_figures(record: TokenRecord, width: int) -> list[tuple[str, str]]:
    """What can be said of a step before anything is taken."""
    figures = [("entropy", _entropy(record)), ("P(end)", percent(record.p_end))]
    if width >= _WIDE_FROM:
        figures.insert(1, ("final", bits(record.final_entropy_bits)))
    return figures


class TokenPanel(Vertical):
    """What is known about one token of a reply, and about its place in it."""

    DEFAULT_CSS = """
    TokenPanel {
        height: 1fr;
        &.-compact Sparklines { height: 2; }
        &.-airy CandidateList, &.-airy Sparklines { margin-top: 1; }
        &.-short Sparklines, &.-brief Sparklines { display: none; }
        &.-brief CandidateList { max-height: 10; }
        & #panel-tabs { height: 1; link-style: none; link-color: $foreground 60%; }
        & PageView {
            display: none;
            height: 1fr;
            overflow-x: hidden;
            scrollbar-size-vertical: 1;
            scrollbar-gutter: stable;
        }
        &.-page TokenSummary, &.-page CandidateList, &.-page Sparklines { display: none; }
        &.-page PageView { display: block; }
        & #panel-more { display: none; height: 1; color: $foreground 60%; }
        &.-brief #panel-more { display: block; }
        &.-empty #panel-more, &.-page #panel-more { display: none; }
        &.-empty CandidateList, &.-empty Sparklines { display: none; }
    }
    """

    brief: reactive[bool] = reactive(False)
    """Whether a share, a bar, a sentence and a few candidates are shown instead of everything."""
    tab: reactive[str] = reactive(TABS[0])
    """The page that is shown."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id)
        self._summary = TokenSummary()
        self.candidates = CandidateList()
        self._curves = Sparklines()
        self.page = PageView(id="panel-page")
        """What the other pages show."""
        self.add_class("-empty")

    def watch_tab(self, tab: str) -> None:
        self.set_class(tab != TABS[0], "-page")
        self._draw_tabs()

    def _draw_tabs(self) -> None:
        short = self.size.width < sum(map(len, TABS)) + len(TABS) - 1
        names = [
            Content.from_markup(
                f"[@click=screen.act('panel','{one}')]{'cand.' if cut else one}[/]"
            ).stylize("bold reverse" if one == self.tab else MUTED)
            for one in TABS
            for cut in [short and one == TABS[0]]
        ]
        self.query_one("#panel-tabs", Static).update(Content(" ").join(names), layout=False)

    def watch_brief(self, brief: bool) -> None:
        """Show less, or everything."""
        self.set_class(brief, "-brief")
        self._summary.brief = brief
        self.candidates.brief = self.page.words_first = brief
        self.page.renew()

    def compose(self) -> ComposeResult:
        yield Static("", id="panel-tabs", markup=False)
        yield self.page
        yield self._summary
        yield self.candidates
        yield self._curves
        yield Static("f11 all the numbers", id="panel-more", markup=False)

    def show(
        self,
        records: Sequence[TokenRecord],
        cursor: int | None = None,
        sampling_changed_at: Collection[int] = (),
        *,
        other: TokenRecord | None = None,
        words: str = "",
        taken: bool = True,
    ) -> None:
        """Show a token of a reply, or what may come next in one that is held.

        Args:
            records: the whole reply so far; empty shows that there is nothing yet.
            cursor: a position in `records`; None follows the newest token.
            sampling_changed_at: the positions from which on other parameters held.
            other: what is told in place of the record there: other numbers, or the step held.
            words: what the other numbers are, in a few words.
            taken: False for a step that is held; its token is only the most probable one.
        """
        place = len(records) - 1 if cursor is None else min(max(cursor, 0), len(records) - 1)
        record = other or (records[place] if records else None)
        self.set_class(record is None, "-empty")
        self._summary.show(record, len(records), taken=taken, words=words)
        self.candidates.show(record, taken=taken)
        marked = place if records and taken else None
        self._curves.show(records, marked, sampling_changed_at)

    def on_resize(self, event: events.Resize) -> None:
        height = event.size.height
        self._draw_tabs()
        self._summary.compact = height < _COMPACT_BELOW
        self.set_class(height < _COMPACT_BELOW, "-compact")
        self.set_class(height >= _AIRY_FROM, "-airy")
        self.set_class(height < _CURVES_FROM, "-short")
