"""`chatapp paths`: where settings, conversations, models and logs are on this machine."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatapp.settings.paths import Paths


def add_parser(commands: Any) -> None:
    """Add `paths` to the command line."""
    parser = commands.add_parser(
        "paths",
        help="where configuration, data, cache and logs are",
        description="Where things are. CHATAPP_HOME moves all of them under one folder.",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them and return the exit status."""
    from chatapp.settings.paths import default_paths

    shown = described(default_paths())
    if args.json:
        print(json.dumps(shown))
        return 0
    width = max(map(len, shown))
    for name, path in shown.items():
        print(f"{name.ljust(width)}  {path}")
    return 0


def described(paths: Paths) -> dict[str, str]:
    """The folders by what is in them; some may not have been made yet."""
    return {
        "config": str(paths.config),
        "data": str(paths.data),
        "cache": str(paths.cache),
        "logs": str(paths.logs),
    }
