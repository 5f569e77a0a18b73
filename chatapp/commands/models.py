"""`chatapp models`: which models there are, and fetching, describing and removing them.

Standard output carries only the answer; progress and notices go to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chatapp.chat.numbers import count, size
from chatapp.commands.options import add_json, add_subcommand
from chatapp.commands.output import plain, tell, write, write_json, write_table
from chatapp.commands.progress import ProgressLine
from chatapp.commands.running import DONE, INTERRUPTED

if TYPE_CHECKING:
    from chatapp.models.catalog import CatalogEntry
    from chatapp.models.installed import ModelInfo
    from chatapp.settings.paths import Paths


def add_parser(commands: Any) -> None:
    """Add `models` to the command line."""
    parser = add_subcommand(
        commands,
        "models",
        run,
        "list, fetch, describe and remove models",
        "The models on this machine, and those that can be fetched.",
    )
    parser.set_defaults(do=_list, json=False)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")

    def action(
        name: str, do: _Action, text: str, ref: str, **given: Any
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=text)
        added.set_defaults(do=do)
        if ref:
            added.add_argument("ref", metavar="REF", help=ref, **given)
        add_json(added, "one JSON object a line")
        return added

    usual = "the default model when left out"
    action("list", _list, "models on this machine and in the catalog", "")
    found = action("search", _search, "look for GGUF models on the Hub", "")
    found.add_argument("text", metavar="TEXT", help="words of its name; or owner/name: its files")
    pull = action("pull", _pull, "fetch a model, verified and resumable", usual, nargs="?")
    pull.add_argument("--offline", action="store_true", help="never touch the network")
    action("info", _info, "what a model's files tell, without loading it", usual, nargs="?")
    action("remove", _remove, "delete a fetched model", "as `chatapp models list` shows it")


def run(args: argparse.Namespace) -> int:
    """Do what was asked and return the exit status. Raises ChatappError."""
    from chatapp.settings.paths import default_paths

    do: _Action = args.do
    return do(args, default_paths())


def _list(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.models.facts import FileFacts, InstalledModel
    from chatapp.models.fitting import fit, machine
    from chatapp.models.installed import fetchable, installed
    from chatapp.settings.config import load_settings

    settings, this = load_settings(paths, os.environ, {}), machine()
    here = installed(paths, settings.model_folders)
    rows: list[tuple[str, ...]] = [("MODEL", "FORMAT", "SIZE", "MEMORY", "SPEED", "STATE")]
    models: list[InstalledModel | CatalogEntry] = [*here, *fetchable(here)]
    for model in models:
        if isinstance(model, InstalledModel):
            names = ["name", "kind", "path", "size", "weight_format", "origin", "problem"]
            ref, is_here = model.ref, not model.problem
            facts: FileFacts | CatalogEntry | None = model.facts
            state = f"installed ({model.origin})" if is_here else f"damaged: {model.problem}"
        else:
            names = ["name", "kind", "weight_format", "size", "license", "description"]
            ref, is_here, facts = model.id, False, model
            state = f"can be fetched: {model.description}"
        found = None if facts is None else fit(facts, model.kind, this, settings.context_length)
        if args.json:
            told = {"ref": ref, **{name: plain(getattr(model, name)) for name in names}}
            told["installed"] = is_here
            if found is not None:
                told |= {"memory": found.memory, "context": found.context, "fits": found.fits}
                told["most_tokens_per_second"] = round(found.most_per_second, 1)
            write_json(told)
            continue
        row = [ref, model.weight_format, size(model.size) if model.size else "", "", "", state]
        if found is not None and found.memory:
            row[2] = f"{'~' * found.estimated}{size(found.size)}"
            row[3] = size(found.memory)
            fast = f"≤ {found.most_per_second:.0f} tok/s"
            row[4] = fast if found.fits else "does not fit"
        rows.append(tuple(row))
    if not args.json:
        write_table(rows)
    return DONE


def _search(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.models import hub
    from chatapp.models.fitting import fit, machine
    from chatapp.models.installed import repo_files
    from chatapp.settings.config import load_settings

    rows: list[tuple[str, ...]] = []
    if hub.is_repo_id(args.text):
        this, context = machine(), load_settings(paths, os.environ, {}).context_length
        for entry in repo_files(args.text):
            if args.json:
                write_json({"ref": entry.id, "size": entry.size})
            rows.append((entry.id, fit(entry, "gguf", this, context).words))
    else:
        for one in hub.search(args.text):
            if args.json:
                write_json({"ref": one.repo, "downloads": one.downloads})
            rows.append((one.repo, f"{count(one.downloads)} downloads this month"))
    if not args.json:
        write_table(rows)
    if not rows:
        tell(f"the Hub has no GGUF model for {args.text!r}")
    return DONE


def _pull(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.models import DEFAULT, missing, obtain

    ref = args.ref or DEFAULT
    entry = missing(ref, paths)
    if entry is not None:
        facts = [entry.name, size(entry.size) if entry.size else "", entry.license]
        tell(f"fetching {' · '.join(filter(None, facts))}")
    try:
        with ProgressLine(sys.stderr) as line:
            source = obtain(ref, paths, offline=args.offline, on_progress=line.update)
    except KeyboardInterrupt:
        tell("stopped; what came is kept, and the next pull goes on from there")
        return INTERRUPTED
    tell(f"{source.name} is ready" if entry else f"{source.name} was here already")
    if args.json:
        told = {name: getattr(source, name) for name in ("name", "kind", "path", "sha256")}
        write_json({"ref": ref, **told, "fetched": entry is not None})
    else:
        write(source.path)
    return DONE


def _info(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.models import DEFAULT
    from chatapp.models.installed import info

    found = info(args.ref or DEFAULT, paths)
    if args.json:
        write_json(found)
    else:
        write_table(_info_rows(found))
    return DONE


def _info_rows(model: ModelInfo) -> list[tuple[str, str]]:
    """What is known, in words; what isn't is left out."""

    def number(count: int) -> str:
        return f"{count:,}" if count else ""

    rows = [
        ("model", model.ref),
        ("name", model.name),
        ("about", model.description),
        ("state", "installed" if model.installed else "can be fetched"),
        ("from", ", then ".join(model.sources)),
        ("path", model.path),
        ("size", f"{size(model.size)} ({model.size:,} bytes)" if model.size else ""),
        ("weight format", model.weight_format),
        ("architecture", model.architecture),
        ("parameters", number(model.parameters)),
        ("tensors", number(model.tensors)),
        ("layers", number(model.layers)),
        ("hidden size", number(model.hidden_size)),
        ("vocabulary", number(model.vocab_size)),
        ("context length", number(model.context_length)),
        ("chat template", ("yes" if model.has_chat_template else "no") * model.installed),
        ("license", model.license),
        ("sha256", model.sha256),
    ]
    return [(label, value) for label, value in rows if value]


def _remove(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.models.installed import remove

    removed = remove(args.ref, paths)
    if args.json:
        write_json(removed)
    else:
        write(f"removed {removed.ref} from {removed.path} ({size(removed.size)} free)")
    return DONE


_Action = Callable[[argparse.Namespace, "Paths"], int]
