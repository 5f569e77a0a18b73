"""What all screens over the chat have in common: each is closed once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.await_complete import AwaitComplete
from textual.css.query import NoMatches
from textual.screen import ModalScreen, ScreenResultType
from textual.worker import WorkType


class Dialog(ModalScreen[ScreenResultType]):
    """A screen over the chat."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that were on their way when it was closed, or not built yet, do nothing."""
        there = self.is_mounted and self in self.app.screen_stack
        return there and super().check_action(action, parameters)

    def work(
        self,
        doing: Callable[[], Coroutine[Any, Any, None]],
        group: str,
        *,
        exclusive: bool = False,
    ) -> None:
        """Do something beside the keys; what it finds for a screen that is closed is dropped.

        It is called when its turn comes: of a screen that goes first, nothing is left unawaited.
        """

        async def run() -> None:
            try:
                await doing()
            except NoMatches:
                if self in self.app.screen_stack:
                    raise

        called: WorkType[None] = run
        self.run_worker(called, group=group, exclusive=exclusive)

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Close it with a result, unless it is closed already.

        Enter or Esc may come twice before the first is obeyed. Textual would close what lies below.
        """
        if self.app.screen is not self:
            return AwaitComplete()
        if not self.is_mounted:  # it would be built when it has been taken down
            self.call_later(self._dismiss, result)
            return AwaitComplete()
        return super().dismiss(result)

    def _dismiss(self, result: ScreenResultType | None) -> None:
        self.dismiss(result)  # a callback would wait for what it returns, and so for itself
