"""Which chat is open: new ones, kept ones, templates, the system text, files in and out."""

from __future__ import annotations

from dataclasses import replace

from chatapp.chat.errors import ChatappError
from chatapp.chat.template import NO_TEMPLATE, Template
from chatapp.ui.actions import CommandError, action, path_of
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.dialogs.chats import ChatsScreen
from chatapp.ui.dialogs.picker import Choice, PickerScreen


class ChatMenu:
    """Opens and begins chats."""

    def __init__(self, chat: ChatBase, conversations: Conversations) -> None:
        self._chat = chat
        self._conversations = conversations

    @property
    def template_names(self) -> list[str]:
        """All templates, `none` included."""
        return sorted({*self._conversations.templates, "none"})

    @action(
        "new",
        usage="[TEMPLATE]",
        keys="ctrl+n",
        key_id="chat.new",
        values=lambda self: self.template_names,
    )
    async def new(self, name: str = "") -> None:
        """Begin a new chat; this one is kept."""
        await self._conversations.begin(self._template(name) if name else None)
        self._chat.prompt.focus()

    @action("clear")
    async def clear(self, _: str = "") -> None:
        """Leave this chat for an empty one with the same settings."""
        await self._conversations.begin_alike()

    @action("chats", keys="ctrl+o", key_id="chat.chats")
    def chats(self, _: str = "") -> None:
        """Open another chat."""
        self.search("")

    @action("search", usage="TEXT")
    def search(self, text: str = "") -> None:
        """Search all chats."""

        async def pick() -> None:
            summaries = await self._conversations.chats.list_conversations()
            current = self._conversations.current
            screen = ChatsScreen(self._conversations, summaries, current, text)
            place = await self._chat.app.push_screen_wait(screen)
            if place is not None:
                await self._conversations.go_to(place)
                self._chat.prompt.focus()

        self._chat.work(pick, "pick", "error")

    @action("rename", usage="TITLE")
    async def rename(self, title: str) -> None:
        """Give this chat another title."""
        await self._conversations.rename_chat(self._conversations.current, title)
        self._chat.say(f"this chat is called {title}")

    @action("template", usage="[NAME]", values=lambda self: [*self.template_names, "save "])
    async def template(self, argument: str = "") -> None:
        """Begin a new chat from a template; save NAME keeps this chat's settings as one."""
        if not argument:
            self._chat.work(self._pick_template, "pick")
            return
        verb, _, name = argument.partition(" ")
        if verb == "save" and name.strip():
            file = await self._conversations.save_template(name.strip())
            self._chat.say(f"kept as template {name.strip()}, in {file}{self._id_words()}")
            return
        await self._begin(self._template(argument))

    async def _pick_template(self) -> None:
        templates = self._conversations.templates
        current = self._chat.session.conversation.template
        rows = [
            Choice(name, name, template.description, current=name == current)
            for name, template in sorted(templates.items())
        ]
        if "none" not in templates:
            rows.append(Choice("none", "none", NO_TEMPLATE.description, current == "none"))
        picked = await self._chat.app.push_screen_wait(PickerScreen("Templates", rows))
        if picked is None:
            return
        try:
            await self._begin(templates.get(picked, NO_TEMPLATE))
        except ChatappError as error:
            self._chat.say(f"{error}; nothing is changed", "warning")

    async def _begin(self, template: Template) -> None:
        await self._conversations.begin(template)
        self._chat.say(f"a new chat from the template {template.name}; the other one is kept")

    def _id_words(self) -> str:
        """What to know of rules for single tokens: ids mean other tokens to another model."""
        sampling = self._chat.sampling
        has_ids = sampling.banned or sampling.logit_bias
        return "; its banned and biased tokens are those of this model" if has_ids else ""

    def _template(self, name: str) -> Template:
        if name == "none":
            return NO_TEMPLATE
        if (template := self._conversations.templates.get(name)) is not None:
            return template
        names = ", ".join(self.template_names)
        raise CommandError(f"there is no template {name!r}; there are {names}")

    @action("system", usage="[TEXT]")
    async def system(self, argument: str = "") -> None:
        """Show or set the system text; none takes it away."""
        if not argument:
            text = self._chat.session.conversation.system
            self._chat.say(
                f"system text: {text}" if text else "there is no system text; /system TEXT sets it"
            )
            return
        text = "" if argument == "none" else argument
        await self._conversations.keep(lambda now: replace(now, system=text))
        self._chat.say(
            "the system text changed, from the next reply on" if text else "no system text"
        )

    @action("export", usage="FILE", files="")
    async def export(self, argument: str) -> None:
        """Write this chat to a file; its suffix says how."""
        path = path_of(argument)
        await self._conversations.export_chat(self._conversations.current, path)
        self._chat.say(f"written to {path}")

    @action("import", usage="FILE", files="")
    async def import_(self, argument: str) -> None:
        """Read a chat from a file and open it."""
        await self._conversations.bring_in(path_of(argument))
