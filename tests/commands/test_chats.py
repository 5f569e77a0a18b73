"""`chatapp chats` from outside: what it prints, writes and returns."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chatapp.chat.errors import ChatappError, StoreError, UsageError
from chatapp.commands import chats
from chatapp.commands.options import Parser
from chatapp.settings.paths import Paths
from chatapp.store.store import Store
from tests.store.samples import make_conversation, make_message


def run(*arguments: str) -> int:
    parser = Parser(prog="chatapp")
    chats.add_parser(parser.add_subparsers(dest="command", parser_class=Parser))
    args = parser.parse_args(["chats", *arguments])
    status: int = args.run(args)
    return status


@pytest.fixture
def filled(paths: Paths) -> Paths:
    async def fill() -> None:
        store = await Store.open(paths.database)
        await store.add(make_conversation("aaaa1111", turns=1))
        longer = make_conversation("bbbb2222", turns=2)
        await store.add(longer.with_message(make_message("e", longer.leaf, "esc \x1b[31m!")))
        await store.close()

    asyncio.run(fill())
    return paths


def test_list(filled: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("bbbb2222")
    assert "    5  Title of bbbb2222" in first
    assert second.startswith("aaaa1111")
    assert run("list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(item["id"], item["messages"]) for item in found] == [("bbbb2222", 5), ("aaaa1111", 2)]


def test_search(filled: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", "number", "1") == 0
    assert "    user: question number 1" in capsys.readouterr().out
    assert run("search", "--json", "number", "1") == 0
    (hit,) = json.loads(capsys.readouterr().out)
    assert (hit["conversation_id"], hit["message_id"]) == ("bbbb2222", "bbbb2222-u1")
    # Nothing found is an answer too: no failure, and no line that a pipe would take for a hit.
    assert run("search", "nowhere") == 0
    assert capsys.readouterr() == ("", "chatapp: no message or title has these words\n")
    assert run("search", "--json", "nowhere") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_an_empty_list_says_so_beside_the_output(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == 0
    assert capsys.readouterr() == ("", "chatapp: no conversation is kept yet\n")
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_show_by_the_beginning_of_the_id(filled: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "aa") == 0
    assert capsys.readouterr().out.startswith("# Title of aaaa1111\n")
    with pytest.raises(StoreError, match="no conversation"):
        run("show", "zz")


def test_on_a_terminal_nothing_can_move_the_cursor(
    filled: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("show", "bb")
    assert "esc \x1b[31m!" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run("show", "bb")
    assert "esc ␛[31m!" in capsys.readouterr().out


def test_export_writes_private_files_and_keeps_what_is_there(
    filled: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.html"
    assert run("export", "bb", "-o", str(target)) == 0
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    before = target.read_bytes()
    with pytest.raises(StoreError, match="there already"):
        run("export", "aa", "-o", str(target))
    assert target.read_bytes() == before
    assert run("export", "aa", "-o", str(target), "--force") == 0
    assert target.read_bytes() != before
    with pytest.raises(StoreError, match="cannot be written"):
        run("export", "aa", "-o", str(tmp_path / "no" / "out.md"))
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []
    assert capsys.readouterr().out == ""


def test_export_replaces_neither_a_link_nor_a_pipe(filled: Paths, tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "out.md", tmp_path / "link.md", tmp_path / "pipe.md"
    target.touch()
    link.symlink_to(target)
    assert run("export", "aa", "-o", str(link), "--force") == 0
    assert link.is_symlink()
    assert target.read_text().startswith("# Title of aaaa1111\n")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run("export", "aa", "-o", str(pipe), "--force") == 0
    assert pipe.is_fifo()
    assert os.read(reader, 100_000) == target.read_bytes()
    os.close(reader)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(StoreError, match="cannot be written"):
        run("export", "aa", "-o", str(link), "--force")


def test_several_conversations_are_json_where_nothing_else_is_said(
    filled: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    run("export", "--all")
    assert len(json.loads(capsys.readouterr().out)["conversations"]) == 2
    run("export", "aa", "bb")
    assert len(json.loads(capsys.readouterr().out)["conversations"]) == 2


def test_where_one_file_is_of_no_use_nothing_is_brought_in(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.html"
    good.write_text('[{"role": "user", "content": "hello"}]')
    bad.write_text("<html>")
    with pytest.raises(StoreError, match=r"bad\.html cannot be imported"):
        run("import", str(good), str(bad))
    run("list", "--json")
    assert json.loads(capsys.readouterr().out) == []


def test_without_a_standard_input_there_is_nothing_to_import(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ChatappError, match="standard input is closed"):
        run("import", "-")


def test_export_of_everything_comes_back_in_another_home(
    filled: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "all.json"
    run("export", "--all", "-o", str(target))
    monkeypatch.setenv("CHATAPP_HOME", str(tmp_path / "other"))
    assert run("import", str(target)) == 0
    assert capsys.readouterr().out.count("imported") == 2
    run("export", "--all", "--format", "json")
    there = json.loads(capsys.readouterr().out)["conversations"]
    here = json.loads(target.read_text())["conversations"]
    assert {item["id"]: item for item in there} == {item["id"]: item for item in here}
    assert run("import", "--json", str(target)) == 0
    assert {item["new"] for item in json.loads(capsys.readouterr().out)} == {False}


def test_import_from_a_pipe(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[{"role": "user", "content": "piped in"}, {"role": "tool", "content": "x"}]'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run("import", "-") == 0
    out, err = capsys.readouterr()
    assert "imported  piped in" in out
    assert err.endswith("no text of the user or a model: 1\n")


def test_what_goes_wrong_is_one_line(filled: Paths, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    for arguments, error in (
        (("import", str(tmp_path / "bad.json")), StoreError),
        (("import", str(tmp_path / "missing.json")), ChatappError),
        (("export",), UsageError),
        (("export", "aa", "--all"), UsageError),
        (("export", "aa", "-o", str(tmp_path / "x.docx")), UsageError),
        (("export", "aa", "bb", "-o", str(tmp_path / "x.md")), UsageError),
        (("search", "--limit", "0", "x"), UsageError),
        (("list", "--nonsense"), UsageError),
    ):
        with pytest.raises(error) as raised:
            run(*arguments)
        assert "\n" not in str(raised.value)


def test_delete_and_undelete(filled: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("delete", "aa") == 0
    assert "undelete aaaa1111" in capsys.readouterr().err
    run("list")
    assert "aaaa1111" not in capsys.readouterr().out
    run("list", "--deleted")
    assert "aaaa1111" in capsys.readouterr().out
    assert run("undelete", "aa") == 0
    run("list")
    assert "aaaa1111" in capsys.readouterr().out


def test_the_parser_imports_neither_sqlite_nor_msgspec() -> None:
    code = (
        "import sys; from chatapp.commands import chats; "
        "print(*{'sqlite3', 'msgspec', 'asyncio.events', 'torch', 'textual'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert set(done.stdout.split()) <= {"asyncio.events"}
