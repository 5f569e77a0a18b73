"""Draws the README's picture from the running program: python -m tests.screenshot FILE.svg

The real model answers, greedily, so the picture is the same on every run of the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from chatapp.cli import build_parser
from chatapp.commands.chat import interface
from chatapp.commands.setup import Setup
from chatapp.ui.services import ModelState
from tests.conftest import SHARED_HOME

QUESTION = "Why is the sky blue? Answer in two sentences."
ARGUMENTS = ["--seed", "3", "--temperature", "0.9"]


async def draw(file: Path, args: argparse.Namespace) -> None:
    async with interface(Setup.from_args(args)) as app, app.run_test(size=(124, 38)) as pilot:
        chat = app.chat
        while chat.models.state is not ModelState.READY:
            await pilot.pause(0.1)
        await pilot.press(*("space" if c == " " else c for c in QUESTION), "enter")
        await pilot.pause(0.5)
        while chat.turns.busy:
            await pilot.pause(0.1)
        await pilot.press("ctrl+t", "tab", "n")
        await pilot.pause(0.3)
        picture = app.export_screenshot(title="chatapp")
    await asyncio.to_thread(file.write_text, picture, "utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        for folder in ("data/models", "cache/prepared"):
            (Path(home) / folder).parent.mkdir(parents=True, exist_ok=True)
            (Path(home) / folder).symlink_to(SHARED_HOME / folder)
        os.environ["CHATAPP_HOME"] = home
        asyncio.run(draw(Path(sys.argv[1]), build_parser().parse_args(ARGUMENTS)))


if __name__ == "__main__":
    main()
