"""Settings: every number of the sampler, the theme, and what to keep for the next start."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.sampling import SamplingParams
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.dialogs.order import OrderScreen
from chatapp.ui.dialogs.picker import Choice, PickerScreen
from chatapp.ui.drawing import MUTED
from chatapp.ui.widgets.sampling_panel import ALL_PARAMETERS, SamplingPanel


class SettingsScreen(Dialog[None]):
    """Turn anything; it holds from the next token on."""

    HELP = (
        "Every number of the sampler: ↑↓ choose, ←→ turn, a digit types a value, home is the"
        " default, delete switches off. t chooses a theme. Ctrl+S keeps the present values, the"
        " theme, the model and the template for the next start."
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f2", "leave", "leave", id="settings.leave"),
        Binding("o", "order", "order of the stages", id="settings.order"),
        Binding("t", "theme", "theme", id="settings.theme"),
        Binding("ctrl+s", "keep", "keep for the next start", id="settings.keep"),
    ]

    def __init__(
        self,
        sampling: SamplingParams,
        settings_file: str,
        turn: Callable[[SamplingParams], None],
        keep: Callable[[], None],
    ) -> None:
        """Show what holds now.

        `turn` takes every change at once; `keep` keeps what holds for the next start, in
        `settings_file`, which is empty for nowhere.
        """
        super().__init__()
        self._sampling = sampling
        self._file = settings_file
        self._turn = turn
        self._keep = keep

    def compose(self) -> ComposeResult:
        panel = SamplingPanel(
            self._sampling, names=ALL_PARAMETERS, show_help=True, id="all-sampling"
        )
        rest = Static(self._rest(), markup=False, id="settings-rest")
        return self.framed("Settings", panel, rest, shape="tall")

    def on_mount(self) -> None:
        self.query_one(SamplingPanel).focus()
        rest = self.query_one("#settings-rest", Static)
        self.watch(self.app, "theme", lambda: rest.update(self._rest()), init=False)

    @on(SamplingPanel.Changed)
    def pass_on(self, event: SamplingPanel.Changed) -> None:
        event.stop()
        self._turn(event.sampling)

    def show(self, sampling: SamplingParams) -> None:
        """Follow a change made elsewhere (Ctrl+Up, Ctrl+Down)."""
        self.query_one(SamplingPanel).sampling = sampling

    def action_theme(self) -> None:
        """Choose another theme; it is shown at once."""
        before = self.app.theme
        names = sorted(self.app.available_themes)
        choices = [Choice(name, name, current=name == before) for name in names]

        def take(name: str | None) -> None:
            if name is not None:
                self.app.theme = name

        self.app.push_screen(PickerScreen("Themes", choices), take)

    def action_order(self) -> None:

        def turn(sampling: SamplingParams) -> None:
            self.query_one(SamplingPanel).sampling = sampling
            self._turn(sampling)

        self.app.push_screen(OrderScreen(self.query_one(SamplingPanel).sampling, turn))

    def action_keep(self) -> None:
        self._keep()

    def _rest(self) -> Content:
        keys = "space on/off · o order · t theme · ctrl+s keep for the next start · esc close"
        where = f"\nkept in {self._file}" if self._file else ""
        theme = Content.styled("theme  ", MUTED) + Content(f"{self.app.theme}\n")
        return theme + Content.styled(keys + where, MUTED)
