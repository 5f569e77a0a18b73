"""The first start: what is being fetched, from where, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from chatapp.chat import numbers
from chatapp.chat.facts import Progress
from chatapp.chat.text import sanitise
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED, bar
from chatapp.ui.services import ModelOffer
from chatapp.ui.speed import Speed

_DRAWS_PER_SECOND = 8
_BAR = 40


class DownloadScreen(Dialog[None]):
    """Shows a fetch while it runs; Esc stops it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "stop", id="download.stop", priority=True),
    ]

    def __init__(
        self,
        offer: ModelOffer,
        progress: Callable[[], Progress | None],
        stop: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """Show a fetch whose state `progress` tells and which `stop` ends."""
        super().__init__()
        self._offer = offer
        self._progress = progress
        self._stop = stop
        self._clock = clock
        self._speed = Speed()
        self._stage = ""
        self._over = False

    def close(self) -> None:
        """The fetch is over: close, or as soon as what lies over this is closed."""
        self._over = True
        self.dismiss(None)

    def on_screen_resume(self) -> None:
        """Nothing lies over this any more."""
        if self._over:
            self.dismiss(None)

    def compose(self) -> ComposeResult:
        offer = Static(offer_text(self._offer), markup=False, id="download-offer")
        progress = Static(Content("starting"), markup=False, id="download-progress")
        keys = "It is fetched once and stays on this machine. esc stops; what came is kept."
        return self.framed("Downloading a model", offer, progress, keys=keys, shape="narrow")

    def on_mount(self) -> None:
        self.set_interval(1 / _DRAWS_PER_SECOND, self.show_progress)

    def show_progress(self) -> None:
        progress = self._progress()
        if progress is None:
            return
        if self._stage != progress.stage:
            self._stage, self._speed = progress.stage, Speed()
        self._speed.count(self._clock(), progress.done)
        text = progress_text(progress, self._speed)
        self.query_one("#download-progress", Static).update(text)

    def action_stop(self) -> None:
        """End the fetch; the screen is closed by whoever runs it."""
        self._stop()


def offer_text(offer: ModelOffer) -> Content:
    """What is fetched: name, size, licence, from where."""
    rows = [
        ("name", offer.name),
        ("about", offer.description),
        ("size", numbers.size(offer.size) if offer.size else "told when it begins"),
        ("licence", offer.license or "not told before; see where it comes from"),
        ("from", "\n         or else ".join(offer.sources)),
    ]
    lines = [
        Content.styled(f"{label:<9}", MUTED) + Content(sanitise(value))
        for label, value in rows
        if value
    ]
    return Content("\n").join(lines)


def progress_text(progress: Progress, speed: Speed) -> Content:
    """A bar, bytes, rate and time left; only what is known."""
    stage = Content.styled(f"{sanitise(progress.stage)}\n", MUTED)
    amount = numbers.size if progress.unit == "bytes" else numbers.count
    if not progress.total:
        return stage + Content(amount(progress.done))
    fraction = progress.done / progress.total
    parts = [f"{amount(progress.done)} of {amount(progress.total)}", f"{int(100 * fraction)} %"]
    if progress.unit == "bytes" and speed.rate > 0:
        parts.append(f"{numbers.size(round(speed.rate))}/s")
        left = speed.seconds_left(progress.total)
        if left is not None and progress.done < progress.total:
            parts.append(f"{numbers.duration(left)} left")
    return stage + bar(fraction, _BAR) + Content("\n" + " · ".join(parts))
