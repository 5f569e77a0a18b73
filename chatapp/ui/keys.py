"""All actions that have an id, so that a key can be given to them in the settings file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from textual.binding import Binding
from textual.dom import DOMNode

_VIM = {
    "token.left": "left,h",
    "token.right": "right,l",
    "token.up": "up,k",
    "token.down": "down,j",
    "token.journey": "J",
    "transcript.end": "end,G",
    "candidate.up": "up,k",
    "candidate.down": "down,j",
    "list.up": "up,k",
    "list.down": "down,j",
    "list.end": "end,G",
}


def keymap(keys: Mapping[str, str], *, vim: bool) -> dict[str, str]:
    """The keys that are not those of the bindings: Vim's where wanted, over them the user's own."""
    return {**(_VIM if vim else {}), **keys}


def unknown_actions(keys: Mapping[str, str]) -> list[str]:
    """What the settings give keys to although no class of this interface binds any to it."""
    known = {
        binding.id
        for owner in key_owners()
        for binding in owner.BINDINGS
        if isinstance(binding, Binding)
    }
    return sorted(key for key in keys if key not in known)


def key_owners(base: type[DOMNode] = DOMNode) -> Iterator[type[DOMNode]]:
    """The widgets and screens of this interface, and the application."""
    for owner in base.__subclasses__():
        if owner.__module__.startswith("chatapp.ui"):
            yield owner
        yield from key_owners(owner)
