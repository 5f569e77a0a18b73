"""What was sent before, walked with ↑ and ↓; the unsent draft waits at the end."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 500


class History:
    """Texts, oldest first, and where the user is among them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = list(texts)[-_MOST:]
        self._place = len(self._texts)
        self._draft = ""

    def add(self, text: str) -> None:
        """Remember what was sent, and go to the end."""
        if text.strip() and (not self._texts or self._texts[-1] != text):
            self._texts.append(text)
            del self._texts[:-_MOST]
        self._place = len(self._texts)
        self._draft = ""

    def older(self, current: str) -> str | None:
        """The text before; None at the oldest. `current` is kept as the draft when leaving it."""
        if self._place == 0:
            return None
        if self._place == len(self._texts):
            self._draft = current
        self._place -= 1
        return self._texts[self._place]

    def newer(self) -> str | None:
        """The text after, the draft after the newest; None where one is there already."""
        if self._place == len(self._texts):
            return None
        self._place += 1
        return self._draft if self._place == len(self._texts) else self._texts[self._place]
