"""`chatapp paths`: where settings, conversations, models and logs are on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from chatapp.commands.options import add_json, add_subcommand
from chatapp.commands.output import write_json, write_table
from chatapp.commands.running import DONE


def add_parser(commands: Any) -> None:
    parser = add_subcommand(
        commands,
        "paths",
        run,
        "where configuration, data, cache and logs are",
        "Where things are. CHATAPP_HOME moves all of them under one folder.",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from chatapp.settings.paths import default_paths

    paths = default_paths()
    shown = {name: str(getattr(paths, name)) for name in ("config", "data", "cache", "logs")}
    if args.json:
        write_json(shown)
    else:
        write_table(list(shown.items()))
    return DONE
