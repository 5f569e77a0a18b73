"""Commands about conversations: which one, what is in it, where it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chatapp.chat.template import NO_TEMPLATE, Template
from chatapp.ui.commands.registry import Command, CommandError

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen


async def _new(screen: ChatScreen, argument: str) -> None:
    await screen.conversations.begin(_template(screen, argument) if argument else None)


async def _clear(screen: ChatScreen, _argument: str) -> None:
    await screen.conversations.begin_alike()


async def _chats(screen: ChatScreen, _argument: str) -> None:
    screen.action_chats()


async def _search(screen: ChatScreen, argument: str) -> None:
    screen.open_chats(argument)


async def _rename(screen: ChatScreen, argument: str) -> None:
    await screen.conversations.rename(argument)
    screen.say(f"this chat is called {argument}")


async def _template_command(screen: ChatScreen, argument: str) -> None:
    if not argument:
        screen.pick_template()
        return
    template = _template(screen, argument)
    await screen.conversations.begin(template)
    screen.say(f"a new chat from the template {template.name}; the other one is kept")


async def _system(screen: ChatScreen, argument: str) -> None:
    if not argument:
        text = screen.session.conversation.system
        screen.say(
            f"system text: {text}" if text else "there is no system text; /system TEXT sets it"
        )
        return
    text = "" if argument == "none" else argument
    await screen.conversations.set_system(text)
    screen.say("the system text changed, from the next reply on" if text else "no system text")


async def _regenerate(screen: ChatScreen, _argument: str) -> None:
    screen.action_regenerate()


async def _continue(screen: ChatScreen, _argument: str) -> None:
    screen.action_continue_reply()


async def _branch(screen: ChatScreen, argument: str) -> None:
    pointed = screen.transcript.pointed
    if pointed is None or pointed[0].message.reply is None:
        raise CommandError("there is no token to branch at; point at one in a reply first")
    if not argument:
        screen.action_branch()
        return
    block, index = pointed
    candidates = block.records[index].candidates
    for candidate in candidates:
        if argument in (str(candidate.rank), candidate.token, candidate.token.strip()):
            screen.branch(block.message.id, index, candidate.id)
            return
    ranks = f"a rank from 1 to {len(candidates)}" if candidates else "nothing: none was recorded"
    raise CommandError(f"/branch takes {ranks}, or one of the candidates' texts, not {argument!r}")


async def _attach(screen: ChatScreen, argument: str) -> None:
    if argument == "none":
        screen.detach()
    else:
        await screen.attach(_path(argument))


async def _tree(screen: ChatScreen, _argument: str) -> None:
    screen.action_tree()


async def _edit(screen: ChatScreen, _argument: str) -> None:
    screen.action_edit()


async def _delete(screen: ChatScreen, _argument: str) -> None:
    await screen.action_delete()


async def _undo(screen: ChatScreen, _argument: str) -> None:
    await screen.action_undelete()


async def _export(screen: ChatScreen, argument: str) -> None:
    path = _path(argument)
    await screen.conversations.export(path)
    screen.say(f"written to {path}")


async def _import(screen: ChatScreen, argument: str) -> None:
    await screen.conversations.bring_in(_path(argument))


async def _copy(screen: ChatScreen, argument: str) -> None:
    if argument in ("", "message"):
        screen.copy_message()
    elif argument == "code":
        screen.copy_code()
    elif argument == "all":
        screen.copy_conversation()
    else:
        raise CommandError(f"/copy takes message, code or all, not {argument!r}")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _template(screen: ChatScreen, name: str) -> Template:
    if name == "none":
        return NO_TEMPLATE
    if (template := screen.services.templates.get(name)) is not None:
        return template
    names = ", ".join(template_names(screen))
    raise CommandError(f"there is no template {name!r}; there are {names}")


def template_names(screen: ChatScreen) -> list[str]:
    """All templates, `none` included."""
    return sorted({*screen.services.templates, "none"})


COMMANDS = (
    Command("new", "[TEMPLATE]", "Begin a new chat; this one is kept.", _new, template_names),
    Command("chats", "", "Open another chat.", _chats),
    Command("search", "TEXT", "Search all chats.", _search),
    Command("rename", "TITLE", "Give this chat another title.", _rename),
    Command(
        "template", "[NAME]", "Begin a new chat from a template.", _template_command, template_names
    ),
    Command("system", "[TEXT]", "Show or set the system text; none takes it away.", _system),
    Command("regen", "", "Write another reply; the old one is kept beside it.", _regenerate),
    Command("continue", "", "Go on from the exact end of a reply that was cut.", _continue),
    Command("branch", "[RANK]", "Take another token at the cursor and go on from it.", _branch),
    Command("attach", "FILE", "Send a text file with the next message; none: don't.", _attach),
    Command("tree", "", "The whole chat with all of its branches.", _tree),
    Command("edit", "", "Write the message pointed at anew; the old one is kept.", _edit),
    Command("delete", "", "Delete the message pointed at, with what follows.", _delete),
    Command("undo", "", "Bring back the message that was deleted last.", _undo),
    Command("export", "FILE", "Write this chat to a file; its suffix says how.", _export),
    Command("import", "FILE", "Read a chat from a file and open it.", _import),
    Command(
        "copy",
        "[WHAT]",
        "Copy a message, its code, or all.",
        _copy,
        lambda _: ["message", "code", "all"],
    ),
    Command("clear", "", "Leave this chat for an empty one with the same settings.", _clear),
)
