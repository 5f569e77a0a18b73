"""`chatapp models`: which models there are, and fetching, describing and removing them.

Standard output carries only the answer; progress and notices go to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chatapp.commands.status import INTERRUPTED

if TYPE_CHECKING:
    from chatapp.models.installed import ModelInfo
    from chatapp.settings.paths import Paths


def add_parser(commands: Any) -> None:
    """Add `models` to the command line."""
    parser = commands.add_parser(
        "models",
        help="list, fetch, describe and remove models",
        description="The models on this machine, and those that can be fetched.",
    )
    parser.set_defaults(run=run, action="list", json=False)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="models on this machine and in the catalog")
    pull = actions.add_parser("pull", help="fetch a model, verified and resumable")
    pull.add_argument("ref", nargs="?", metavar="REF", help="the default model when left out")
    pull.add_argument("--offline", action="store_true", help="never touch the network")
    about = actions.add_parser("info", help="what a model's files tell, without loading it")
    about.add_argument("ref", nargs="?", metavar="REF", help="the default model when left out")
    remove = actions.add_parser("remove", help="delete a fetched model")
    remove.add_argument("ref", metavar="REF", help="as `chatapp models list` shows it")
    for action in (listing, pull, about, remove):
        action.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Do what was asked and return the exit status. Raises ChatappError."""
    from chatapp.settings.paths import default_paths

    paths = default_paths()
    match args.action:
        case "pull":
            return _pull(args, paths)
        case "info":
            return _info(args, paths)
        case "remove":
            return _remove(args, paths)
        case _:
            return _list(args, paths)


def _list(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.commands.progress import size
    from chatapp.models.catalog import catalog
    from chatapp.models.installed import installed

    here = installed(paths)
    rows = []
    for model in here:
        state = f"damaged: {model.problem}" if model.problem else f"installed ({model.origin})"
        if args.json:
            _write_json(
                ref=model.ref,
                name=model.name,
                installed=not model.problem,
                kind=model.kind,
                weight_format=model.weight_format,
                size=model.size,
                path=str(model.path),
                origin=model.origin,
                problem=model.problem,
            )
        rows.append((model.ref, model.weight_format, size(model.size), state))
    refs = {model.ref for model in here}
    for entry in catalog():
        repos = {getattr(source, "repo", "") for source in entry.sources}
        if entry.id in refs or (entry.kind == "folder" and repos & refs):
            continue
        if args.json:
            _write_json(
                ref=entry.id,
                name=entry.name,
                installed=False,
                kind=entry.kind,
                weight_format=entry.weight_format,
                size=entry.size,
                license=entry.license,
                description=entry.description,
            )
        known = size(entry.size) if entry.size else ""
        rows.append((entry.id, entry.weight_format, known, f"can be fetched: {entry.description}"))
    if not args.json:
        _write_table(("MODEL", "FORMAT", "SIZE", "STATE"), rows)
    return 0


def _pull(args: argparse.Namespace, paths: Paths) -> int:
    from chatapp.commands.progress import ProgressLine, size
    from chatapp.models import DEFAULT, missing, obtain

    ref = args.ref or DEFAULT
    line = ProgressLine(sys.stderr)
    entry = missing(ref, paths)
    if entry is not None:
        facts = [entry.name, size(entry.size) if entry.size else "", entry.license]
        _notice(f"fetching {' · '.join(filter(None, facts))}")
    try:
        source = obtain(ref, paths, offline=args.offline, on_progress=line.update)
    except KeyboardInterrupt:
        line.close()
        _notice("stopped; what came is kept, and the next pull goes on from there")
        return INTERRUPTED
    finally:
        line.close()
    _notice(f"{source.name} is ready" if entry else f"{source.name} was here already")
    if args.json:
        _write_json(
            ref=ref,
            name=source.name,
            kind=source.kind,
            path=source.path,
            sha256=source.sha256,
            fetched=entry is not None,
        )
    else:
        _write(source.path)
    return 0


def _info(args: argparse.Namespace, paths: Paths) -> int:
    from dataclasses import asdict

    from chatapp.models import DEFAULT
    from chatapp.models.installed import info

    found = info(args.ref or DEFAULT, paths)
    if args.json:
        _write_json(**asdict(found))
    else:
        _write_table((), _info_rows(found))
    return 0


def _info_rows(model: ModelInfo) -> list[tuple[str, str]]:
    """What is known, in words; what isn't is left out."""
    from chatapp.commands.progress import size

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
    from chatapp.commands.progress import size
    from chatapp.models.installed import remove

    removed = remove(args.ref, paths)
    if args.json:
        _write_json(
            ref=removed.ref, path=str(removed.path), size=removed.size, origin=removed.origin
        )
    else:
        _write(f"removed {removed.ref} from {removed.path} ({size(removed.size)} free)")
    return 0


def _write_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what stands in them; the last one runs free."""
    from chatapp.chat.text import sanitise

    lines = [tuple(map(sanitise, row)) for row in ([header] if header else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        _write("  ".join(cells).rstrip())


def _write_json(**values: object) -> None:
    _write(json.dumps(values))


def _write(line: str) -> None:
    print(line, flush=True)


def _notice(line: str) -> None:
    from chatapp.chat.text import sanitise

    if sys.stderr is not None:
        print(sanitise(line), file=sys.stderr, flush=True)
