"""`chatapp paths`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatapp.commands import paths
from chatapp.commands.options import Parser


def main(argv: list[str]) -> int:
    parser = Parser(prog="chatapp")
    paths.add_parser(parser.add_subparsers())
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status


def test_folders_are_aligned(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paths"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"config  {home}/config",
        f"data    {home}/data",
        f"cache   {home}/cache",
        f"logs    {home}/state/logs",
    ]
    assert not home.exists()  # looking makes nothing


def test_folders_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paths", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["data"] == str(home / "data")
    assert set(shown) == {"config", "data", "cache", "logs"}
