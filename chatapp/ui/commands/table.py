"""The table of all commands."""

from __future__ import annotations

from chatapp.ui.commands import conversation, inspect, rules, sampling, view
from chatapp.ui.commands.registry import Commands

ALL = Commands(
    sorted(
        (
            *view.COMMANDS,
            *conversation.COMMANDS,
            *sampling.COMMANDS,
            *inspect.COMMANDS,
            *rules.COMMANDS,
        ),
        key=lambda command: command.name,
    )
)
"""Every command there is, by name."""
