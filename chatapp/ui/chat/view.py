"""What is seen: tokens and colours, the panel, the prompt as the model reads it, help, settings."""

from __future__ import annotations

import os
from typing import cast

from textual.app import SuspendNotSupported

from chatapp.chat import numbers
from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import PARAMETERS
from chatapp.ui.actions import CommandError, action, keymap
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.models import Models
from chatapp.ui.dialogs.dialog import HelpScreen
from chatapp.ui.dialogs.prompt_view import PromptScreen
from chatapp.ui.dialogs.settings import SettingsScreen
from chatapp.ui.editor import edit_text, editor_command
from chatapp.ui.token_colours import SCALES, Scale
from chatapp.ui.widgets.sampling_panel import MAIN_PARAMETERS


class View:
    """Changes how the chat is shown, and opens what explains it."""

    def __init__(self, chat: ChatBase, models: Models, conversations: Conversations) -> None:
        self._chat = chat
        self._models = models
        self._conversations = conversations

    # Tokens and colours

    @action(
        "tokens", usage="[SCALE]", keys="ctrl+t", key_id="chat.tokens", takes=("on", "off", *SCALES)
    )
    def tokens(self, what: str = "") -> None:
        """Show replies as tokens, coloured by a scale, or as Markdown."""
        transcript = self._chat.transcript
        if not what:
            transcript.view = "markdown" if transcript.view == "tokens" else "tokens"
        elif what in ("on", "off"):
            transcript.view = "tokens" if what == "on" else "markdown"
        else:
            transcript.scale = cast(Scale, what)
            transcript.view = "tokens"

    @action("colour", usage="[SCALE]", keys="f12", key_id="chat.scale", takes=SCALES)
    def colour(self, name: str = "") -> None:
        """Colour tokens by a scale; without one, by the next."""
        transcript = self._chat.transcript
        following = SCALES[(SCALES.index(transcript.scale) + 1) % len(SCALES)]
        transcript.scale = cast(Scale, name) if name else following
        if transcript.cursor is None:
            transcript.view = "tokens"

    @action("details", keys="f11", key_id="panel.details")
    def details(self, _: str = "") -> None:
        """All numbers of the token, or a share and a sentence."""
        self._chat.unfold_panel()
        self._chat.panel.brief = not self._chat.panel.brief

    @action("prompt")
    def prompt(self, _: str = "") -> None:
        """The exact text and tokens that the model reads."""
        self._models.when_ready(self._show_prompt)

    async def _show_prompt(self) -> None:
        session = self._chat.session
        rendered = await session.engine.render(session.prompt_for(session.conversation.leaf))
        self._chat.app.push_screen(PromptScreen(rendered))

    # Help and settings

    @action("help", keys="f1", key_id="chat.help")
    def help(self, _: str = "") -> None:
        """Help for what is focused, keys and commands."""
        here = str(getattr(self._chat.focused, "HELP", "") or "")
        self._chat.app.push_screen(HelpScreen(self._chat, here, self._chat.actions.all))

    @action("settings", keys="f2", key_id="chat.settings")
    def settings(self, _: str = "") -> None:
        """Every number of the sampler, the theme, and what to keep."""
        file = self._chat.services.settings_file
        screen = SettingsScreen(
            self._chat.sampling, file, self._chat.set_sampling, self._keep_settings
        )
        self._chat.app.push_screen(screen)

    @action("vim", usage="[on or off]", takes=("on", "off"))
    def vim(self, which: str = "") -> None:
        """Vim's keys where you write, h j k l in transcript and lists; Ctrl+S in F2 keeps it."""
        chat = self._chat
        chat.prompt.vim = which == "on" or (not which and not chat.prompt.vim)
        chat.app.set_keymap(keymap(chat.services.keys, vim=chat.prompt.vim))
        chat.say(
            "Esc leaves writing now; F1 in the prompt lists the keys"
            if chat.prompt.vim
            else "keys are as ever"
        )

    @action("theme")
    def theme(self, _: str = "") -> None:
        """Choose another theme."""
        self._chat.app.search_themes()

    def _keep_settings(self) -> None:
        """Keep what holds now for the next start."""
        sampling = self._chat.session.sampling
        present: dict[str, object] = {
            "theme": self._chat.app.theme,
            "model": self._models.ref,
            "template": self._conversations.template.name,
            "scale": self._chat.transcript.scale,
            "panel": "brief" if self._chat.panel.brief else "full",
            "vim": True if self._chat.prompt.vim else None,
        }
        for name, parameter in PARAMETERS.items():
            value = getattr(sampling, name)
            # What is off or as ever needs no line in the file; what matters most is always told.
            known = name in MAIN_PARAMETERS or value != parameter.default
            present[name] = value if known else None
        try:
            for name, kept in present.items():
                self._chat.services.save_setting(name, kept)
        except ChatappError as error:
            self._chat.say_error(str(error))
        else:
            self._chat.say("kept for the next start")

    # Elsewhere

    @action("editor")
    def editor(self, _: str = "") -> None:
        """Write the message in your own editor (Ctrl+G in the prompt)."""
        prompt = self._chat.prompt
        text = "" if prompt.text.startswith("/editor") else prompt.text
        try:
            command = editor_command(os.environ)
            with self._chat.app.suspend():
                text = edit_text(text, command)
        except SuspendNotSupported:
            raise CommandError("this terminal cannot be lent to an editor") from None
        prompt.take(text)
        self._chat.say(f"{numbers.count(len(text))} characters from {command[0]}")

    @action("quit")
    async def quit(self, _: str = "") -> None:
        """Leave chatapp (Ctrl+Q)."""
        await self._chat.app.run_action("quit")
