"""What a search looked at, as lines: beams as a tree, contrastive as a table."""

from __future__ import annotations

from dataclasses import dataclass, field

from textual.content import Content

from chatapp.chat.numbers import count, decimal, duration, percent, tokens
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
from chatapp.explain.cells import fit_token
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Line

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
    height: int = 1
    """Of the branch below, itself included; found out when it is drawn."""

    @property
    def dropped(self) -> bool:
        """Whether others scored better."""
        return self.fate is ExtensionFate.DROPPED


class BeamTree:
    """A beam search as it goes on."""

    def __init__(self) -> None:
        self._root = _Node(None, 0.0, ExtensionFate.KEPT)
        self._alive = [self._root]
        self._nodes: list[_Node] = []
        """In the order in which they came."""
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
            self._nodes.append(node)
            if one.beam is not None:
                alive[one.beam] = node
        self._alive = [alive[place] for place in sorted(alive)]

    def lines(self, width: int) -> list[Line]:
        """The tree, then the hypotheses."""
        rows: list[Line] = []
        for node in reversed(self._nodes):  # what is below a node was added after it
            node.height = 1 + max((one.height for one in node.children), default=0)
        _draw(self._root, "", rows)
        for place, one in enumerate(self._hypotheses, 1):
            text = " ".join(sanitise(one.text).split())
            label = Content.styled(f"{place}  score {decimal(one.score, 3)}  ", "bold")
            rows += [Line(Content("")), Line(label + Content(text))]
        return [Line(row.content.truncate(width, ellipsis=True)) for row in rows]


def _draw(node: _Node, prefix: str, rows: list[Line]) -> None:
    """What is below a node: the longest branch goes straight down, the others stand beside it,
    and what was dropped stands on the row of the one that was kept in its place."""
    while True:
        living = [one for one in node.children if one.children or not one.dropped]
        dropped = [one for one in node.children if one.dropped and not one.children]
        if not living:
            if dropped:
                rows.append(Line(Content.styled(prefix, MUTED) + _dropped(dropped)))
            return
        living.sort(key=lambda one: -one.height)
        main, *sides = living
        for side in sides:
            rows.append(Line(Content.styled(f"{prefix}├ ", MUTED) + _words([side])))
            _draw(side, f"{prefix}│ ", rows)
        run = [main]
        while len(run[-1].children) == 1 and not run[-1].children[0].dropped:
            run.append(run[-1].children[0])
        rows.append(Line(Content.styled(prefix, MUTED) + _words(run) + _dropped(dropped)))
        node = run[-1]


def _words(run: list[_Node]) -> Content:
    end = run[-1]
    text = "".join(visible_token(one.token.bytes) for one in run if one.token is not None)
    mark = " ■" if end.fate is ExtensionFate.FINISHED else ""
    style = "bold" if mark else ""
    return Content.styled(f"{text}{mark}", style) + Content.styled(
        f" ({decimal(end.score, 3)})", MUTED
    )


def _dropped(nodes: list[_Node]) -> Content:
    words = [
        f"  × {visible_token(one.token.bytes)} ({decimal(one.score, 3)})"
        for one in nodes
        if one.token is not None
    ]
    return Content.styled("".join(words), MUTED)


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
            self.status = tokens(len(self._steps))
        elif isinstance(event, ContrastiveEnd):
            self._end = event
            words = sanitise(event.message) or str(event.reason)
            self.status = f"{tokens(len(self._steps))} · ended: {words}"

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


_CONTRASTIVE_HEAD = "token   candidate            model  penalty   score most like"
