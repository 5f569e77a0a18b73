"""What each package drags in. The static checks are a command of their own: tests.checks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.checks import ROOT

LIGHT = (
    "chatapp",
    "chatapp.cli",
    "chatapp.chat.conversation",
    "chatapp.chat.template",
    "chatapp.commands",
    "chatapp.session.session",
    "chatapp.settings.config",
    "chatapp.settings.library",
    "chatapp.models",
    "chatapp.store",
    "chatapp.link.client",
    "chatapp.link.server",
    "chatapp.engine",
    "chatapp.ui",
)
HEAVY = ("torch", "transformers", "textual", "rich", "numpy", "jinja2", "huggingface_hub", "gguf")


@pytest.mark.parametrize(
    ("modules", "allowed"), [(LIGHT, ()), (("chatapp.ui.app",), ("textual", "rich"))]
)
def test_importing_is_light(modules: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """In a fresh interpreter, one after the other: what heavy modules does each drag in?"""
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = {set(HEAVY) - set(allowed)!r} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'{name} imports {heavy}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
