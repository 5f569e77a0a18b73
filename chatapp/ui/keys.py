"""All actions that have an id, so that a key can be given to them in the settings file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from textual.binding import Binding
from textual.dom import DOMNode


def action_ids(owners: Iterable[type[DOMNode]]) -> set[str]:
    """The ids of what these classes bind keys to."""
    return {
        binding.id
        for owner in owners
        for binding in owner.BINDINGS
        if isinstance(binding, Binding) and binding.id
    }


def unknown_actions(keys: Mapping[str, str], owners: Iterable[type[DOMNode]]) -> list[str]:
    """What the settings give keys to although there is no such action."""
    return sorted(set(keys) - action_ids(owners))
