"""What opens over the chat: help, settings, models, templates, chats, the prompt, the editor."""

from __future__ import annotations

import os

from textual.app import SuspendNotSupported

from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import PARAMETERS
from chatapp.chat.template import NO_TEMPLATE
from chatapp.ui import numbers
from chatapp.ui.commands.table import ALL
from chatapp.ui.control.editor import edit_text, editor_command
from chatapp.ui.screens.chat_attach import ChatAttach
from chatapp.ui.screens.chats import ChatsScreen
from chatapp.ui.screens.help import help_for
from chatapp.ui.screens.picker import Choice, PickerScreen
from chatapp.ui.screens.prompt_view import PromptScreen
from chatapp.ui.screens.settings import SettingsScreen
from chatapp.ui.widgets.sampling_panel import MAIN_PARAMETERS


class ChatDialogs(ChatAttach):
    """Opens screens, and does what comes of them."""

    def action_help(self) -> None:
        """Help for what is focused, then everything."""
        here = str(getattr(self.focused, "HELP", "") or "")
        self.app.push_screen(help_for(self, here, ALL.all))

    def action_settings(self) -> None:
        """Every number of the sampler, and the theme."""
        screen = SettingsScreen(
            self.sampling,
            self.services.settings_file,
            self.set_sampling,
            self.keep_settings,
        )
        self.app.push_screen(screen)

    def keep_settings(self) -> None:
        """Keep what holds now for the next start."""
        save = self.services.save_setting
        if save is None:
            self.say("settings are not kept in this session", "warning")
            return
        try:
            for name, value in self._present_settings():
                save(name, value)
        except ChatappError as error:
            self.say_error(str(error))
        else:
            self.say("kept for the next start")

    def _present_settings(self) -> list[tuple[str, object]]:
        sampling = self.session.sampling
        present: list[tuple[str, object]] = [
            ("theme", self.app.theme),
            ("model", self.models.ref),
            ("template", self.conversations.template.name),
            ("scale", self.transcript.scale),
        ]
        for name, parameter in PARAMETERS.items():
            value = getattr(sampling, name)
            # What is off or as ever needs no line in the file; what matters most is always told.
            known = name in MAIN_PARAMETERS or value != parameter.default
            present.append((name, value if known else None))
        return present

    def action_models(self) -> None:
        """Choose another model."""
        self.run_worker(self._pick_model(), group="pick", exclusive=True)

    async def _pick_model(self) -> None:
        try:
            choices = await self.services.models.choices()
        except ChatappError as error:
            self.say_error(str(error))
            return
        rows = [
            Choice(
                choice.ref,
                choice.name if choice.installed else f"{choice.name} (not downloaded)",
                choice.problem or choice.detail,
                current=choice.ref == self.models.ref,
                enabled=not choice.problem,
            )
            for choice in choices
        ]
        if self.models.ref not in {choice.ref for choice in choices}:
            facts = self.session.facts
            name = facts.name if facts is not None else self.models.ref
            rows.insert(0, Choice(self.models.ref, name, self.models.ref, current=True))
        picked = await self.app.push_screen_wait(
            PickerScreen("Models", rows, empty="no model is known; /model REF loads any other")
        )
        if picked is not None:
            self.use_model(picked)

    def use_model(self, ref: str) -> None:
        """Load a model in place of the one that is loaded."""
        self.run_worker(self._use_model(ref), group="use-model", exclusive=True)

    async def _use_model(self, ref: str) -> None:
        try:
            await self.services.models.missing(ref)
        except ChatappError as error:
            self.say(f"{error}; nothing is changed", "warning")
            return
        await self.turns.stop()
        self.models.load(ref)

    def pick_template(self) -> None:
        """Begin a new chat from a template."""
        self.run_worker(self._pick_template(), group="pick", exclusive=True)

    async def _pick_template(self) -> None:
        current = self.session.conversation.template
        rows = [
            Choice(name, name, template.description, current=name == current)
            for name, template in sorted(self.conversations.templates.items())
        ]
        if "none" not in self.conversations.templates:
            rows.append(Choice("none", "none", NO_TEMPLATE.description, current == "none"))
        picked = await self.app.push_screen_wait(PickerScreen("Templates", rows))
        if picked is None:
            return
        try:
            await self.conversations.begin(self.conversations.templates.get(picked, NO_TEMPLATE))
        except ChatappError as error:
            self.say(f"{error}; nothing is changed", "warning")
        else:
            self.say(f"a new chat from the template {picked}; the other one is kept")

    def action_chats(self) -> None:
        """Open another chat."""
        self.open_chats("")

    def open_chats(self, text: str) -> None:
        """Open another chat, found by some words."""
        self.run_worker(self._pick_chat(text), group="pick", exclusive=True)

    async def _pick_chat(self, text: str) -> None:
        try:
            summaries = await self.conversations.chats.list_conversations()
            current = self.conversations.current
            screen = ChatsScreen(self.conversations, summaries, current, text)
            place = await self.app.push_screen_wait(screen)
            if place is not None:
                await self.conversations.go_to(place)
                self.prompt.focus()
        except ChatappError as error:
            self.say_error(str(error))

    async def show_prompt(self) -> None:
        """Show exactly what the model reads next. Raises ChatappError."""
        await self.models.ready()
        prompt = self.session.prompt_for(self.session.conversation.leaf)
        rendered = await self.session.engine.render(prompt)
        self.app.push_screen(PromptScreen(rendered))

    def edit_in_editor(self) -> None:
        """Let the person's own editor change the text of the prompt."""
        try:
            command = editor_command(os.environ)
            with self.app.suspend():
                text = edit_text(self.prompt.text, command)
        except ChatappError as error:
            self.say_error(str(error))
        except SuspendNotSupported:
            self.say("this terminal cannot be lent to an editor", "warning")
        else:
            self.prompt.take(text)
            self.say(f"{numbers.count(len(text))} characters from {command[0]}")
