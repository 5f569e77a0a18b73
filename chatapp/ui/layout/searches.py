"""What a search looked at, as lines: beams as a tree with what was dropped, contrastive as a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from textual.content import Content

from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import FinishReason
from chatapp.chat.search import (
    BeamEnd,
    BeamStep,
    ContrastiveEnd,
    ContrastiveStep,
    ExtensionFate,
    Hypothesis,
)
from chatapp.chat.text import sanitise, visible_token
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Line
from chatapp.ui.numbers import count, decimal, duration, percent
from chatapp.ui.widgets.cells import fit_token

_MARKS = {ExtensionFate.KEPT: "", ExtensionFate.FINISHED: " ■", ExtensionFate.DROPPED: " ×"}
_STYLES = {ExtensionFate.KEPT: "", ExtensionFate.FINISHED: "bold", ExtensionFate.DROPPED: MUTED}
LEGEND = "■ finished  × dropped  (score)"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gives back to be taken as a reply."""

    ids: tuple[int, ...]
    reason: FinishReason


@dataclass(slots=True, eq=False)
class _Node:
    """One extension, and what grew from it."""

    token: TokenPiece | None
    score: float
    fate: ExtensionFate
    children: list[_Node] = field(default_factory=list)


class BeamTree:
    """A beam search as it goes on."""

    def __init__(self) -> None:
        self._root = _Node(None, 0.0, ExtensionFate.KEPT)
        self._alive = [self._root]
        self._hypotheses: tuple[Hypothesis, ...] = ()
        self._steps = 0
        self.status = "searching …"

    def take(self, event: object) -> None:
        """Take in a level, or the end."""
        if isinstance(event, BeamStep):
            self._grow(event)
            self._steps = event.index + 1
            self.status = f"{count(self._steps)} steps · {len(event.beams)} beams alive"
        elif isinstance(event, BeamEnd):
            self._hypotheses = event.hypotheses
            words = sanitise(event.message) or str(event.reason)
            time = duration(event.seconds)
            self.status = f"{count(self._steps)} steps in {time} · ended: {words}"

    @property
    def found(self) -> tuple[Found, ...]:
        """The hypotheses, best first."""
        return tuple(Found(one.ids, one.reason) for one in self._hypotheses)

    def _grow(self, step: BeamStep) -> None:
        alive: dict[int, _Node] = {}
        for one in step.extensions:
            node = _Node(one.token, one.score, one.fate)
            self._alive[one.parent].children.append(node)
            if one.beam is not None:
                alive[one.beam] = node
        self._alive = [alive[place] for place in sorted(alive)]

    def lines(self, width: int) -> list[Line]:
        """The tree, then the hypotheses."""
        rows: list[Line] = []
        for place, child in enumerate(self._root.children):
            _draw(child, "", place == len(self._root.children) - 1, rows)
        for place, one in enumerate(self._hypotheses, 1):
            text = " ".join(sanitise(one.text).split())
            label = Content.styled(f"{place}  score {decimal(one.score, 3)}  ", "bold")
            rows += [Line(Content("")), Line(label + Content(text))]
        return [Line(row.content.truncate(width, ellipsis=True)) for row in rows]


def _draw(node: _Node, prefix: str, last: bool, rows: list[Line]) -> None:
    """A node and what is below it; a run of nodes without a fork is one row."""
    run = [node]
    while len(run[-1].children) == 1:
        run.append(run[-1].children[0])
    end = run[-1]
    text = "".join(visible_token(one.token.bytes) for one in run if one.token is not None)
    words = f"{text}{_MARKS[end.fate]} ({decimal(end.score, 3)})"
    branch = Content.styled(prefix + ("└ " if last else "├ "), MUTED)
    rows.append(Line(branch + Content.styled(words, _STYLES[end.fate])))
    below = prefix + ("  " if last else "│ ")
    for place, child in enumerate(end.children):
        _draw(child, below, place == len(end.children) - 1, rows)


class ContrastiveTable:
    """A contrastive search as it goes on."""

    def __init__(self) -> None:
        self._steps: list[ContrastiveStep] = []
        self._end: ContrastiveEnd | None = None
        self.status = "searching …"

    def take(self, event: object) -> None:
        """Take in a token, or the end."""
        if isinstance(event, ContrastiveStep):
            self._steps.append(event)
            self.status = f"{count(len(self._steps))} tokens"
        elif isinstance(event, ContrastiveEnd):
            self._end = event
            words = sanitise(event.message) or str(event.reason)
            self.status = f"{count(len(self._steps))} tokens · ended: {words}"

    @property
    def found(self) -> tuple[Found, ...]:
        """The reply, once there is one."""
        if self._end is None or not self._steps:
            return ()
        ids = tuple(step.candidates[step.chosen].token.id for step in self._steps)
        return (Found(ids, self._end.reason),)

    def lines(self, width: int) -> list[Line]:
        """The text, then a row for every candidate of every token."""
        text = sanitise("".join(step.text for step in self._steps))
        rows = [Line(row) for row in Content(text).wrap(max(width, 1))]
        rows.append(Line(Content.styled(_CONTRASTIVE_HEAD, MUTED)))
        for step in self._steps:
            for place, one in enumerate(step.candidates):
                chosen = place == step.chosen
                number = f"{step.index + 1:>5}" if not place else " " * 5
                row = (
                    f"{number} {'●' if chosen else ' '} {fit_token(one.token.bytes, 16)}"
                    f"{percent(one.model_prob):>9}{decimal(one.penalty, 3):>9}"
                    f"{decimal(one.score, 3):>8}{one.closest:>10}"
                )
                rows.append(Line(Content.styled(row, "bold" if chosen else MUTED)))
        return rows


_CONTRASTIVE_HEAD = "token   candidate            model  penalty   score  likest to"
