"""The static checks, run as tests so that one command runs everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CHECKS = {
    "format": ["-m", "ruff", "format", "--check", "."],
    "lint": ["-m", "ruff", "check", "."],
    "types": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_check(name: str) -> None:
    done = subprocess.run(
        [sys.executable, *CHECKS[name]], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


HEAVY = ("torch", "transformers", "textual", "rich", "numpy", "jinja2", "huggingface_hub", "gguf")

ALLOWED = {
    "chatapp": (),
    "chatapp.cli": (),
    "chatapp.chat.conversation": (),
    "chatapp.chat.template": (),
    "chatapp.commands": (),
    "chatapp.session.session": (),
    "chatapp.settings.config": (),
    "chatapp.settings.library": (),
    "chatapp.models": (),
    "chatapp.store": (),
    "chatapp.link.client": (),
    "chatapp.link.server": (),
    "chatapp.engine": (),
    "chatapp.ui": (),
    "chatapp.ui.app": ("textual", "rich"),
}


@pytest.mark.parametrize("module", ALLOWED)
def test_importing_is_light(module: str) -> None:
    """Each package in a fresh interpreter: what heavy modules does it drag in?"""
    script = f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= set(ALLOWED[module])
