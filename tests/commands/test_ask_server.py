"""`chatapp ask` of a model behind a server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from chatapp.settings.paths import Paths
from tests.conftest import Call, one_line
from tests.engine.llama_server import llama_server
from tests.engine.model_server import DONE, Answer, ModelServer, delta, entry, sse


@pytest.fixture(scope="module")
def address(tiny_gguf: str) -> Iterator[str]:
    with llama_server(tiny_gguf, api_keys=["key-of-the-test"]) as address:
        yield address


def configure(paths: Paths, text: str) -> None:
    paths.config.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text(text)


def test_a_server_of_the_settings_by_its_name(
    call: Call, paths: Paths, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(paths, f'[servers.lab]\nurl = "{address}"\nkey = "LAB_KEY"\n')
    refused = call("ask", "-m", "lab", "hello")
    assert (refused.returncode, refused.stdout) == (1, "")
    # The server, in this process, writes lines of its own to standard error.
    (words,) = [line for line in refused.stderr.splitlines() if line.startswith("chatapp: ")]
    assert "set LAB_KEY" in words
    monkeypatch.setenv("LAB_KEY", "key-of-the-test")
    asked = ("ask", "-m", "lab", "hello", "--template", "none", "-t", "0", "--max-tokens", "9")
    plain = call(*asked)
    assert (plain.returncode, plain.stdout != "") == (0, True)
    lines = [json.loads(line) for line in call(*asked, "--json").stdout.splitlines()]
    start, *tokens, end = lines
    assert start["runtime"] == "llama-server"
    assert start["numbers"] == {"logprob": "raw", "tempered_prob": "unknown", "prob": "unknown"}
    assert start["prompt_tokens"] == len(start["prompt_ids"])
    assert "".join(token["text"] for token in tokens) == end["text"]
    known = [token for token in tokens if token["logprob"] is not None]
    assert known
    for token in known:
        assert token["prob"] is token["tempered_prob"] is token["entropy_bits"] is None
        assert token["entropy_bits_at_least"] > 0
        assert all(one["prob"] is None for one in token["top_logprobs"])
    # Nothing that was written holds the key or what was said.
    for file in (one for one in paths.config.parent.rglob("*") if one.is_file()):
        assert b"key-of-the-test" not in file.read_bytes()
    for log in paths.logs.iterdir():
        assert "hello" not in log.read_text()


def test_a_chat_goes_on_at_a_server(
    call: Call, paths: Paths, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(paths, f'[servers.lab]\nurl = "{address}"\nkey = "LAB_KEY"\n')
    monkeypatch.setenv("LAB_KEY", "key-of-the-test")
    chat = paths.config.parent / "chat.json"
    said = {
        "messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    }
    chat.write_text(json.dumps(said))
    assert call("chats", "import", str(chat)).returncode == 0
    asked = ("ask", "-m", address, "-c", "--template", "none", "-t", "0", "--max-tokens", "9")
    first, second = call(*asked, "three"), call(*asked, "four", "--json")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    (listed,) = json.loads(call("chats", "list", "--json").stdout)
    chat_id = listed["id"]
    shown = call("chats", "export", "--format", "jsonl", "-o", "-", chat_id).stdout
    lines = [json.loads(line) for line in shown.splitlines()]
    # What was kept is what was told, with the unknown unknown.
    assert [line["type"] for line in lines].count("start") == 2
    assert lines[0]["numbers"]["logprob"] == "raw"
    told = [json.loads(line) for line in second.stdout.splitlines() if '"token"' in line[:16]]
    kept = [line for line in lines if line["type"] == "token"][-len(told) :]
    for one, other in zip(kept, told, strict=True):
        assert one["logprob"] == (other["logprob"] and pytest.approx(other["logprob"], rel=1e-6))
        assert (one["id"], one["rank"], one["prob"]) == (other["id"], other["rank"], None)


def test_of_a_server_that_tells_less_the_rest_is_null(call: Call) -> None:
    server = ModelServer()
    listed = {"data": [{"id": "m", "owned_by": "vllm"}]}
    server.answers["/v1/models"] = [Answer(listed)]
    lines = sse(delta("Hi", entry("Hi", -0.5, ("Hi", -0.5)), finish="stop"), DONE)
    server.answers["/v1/chat/completions"] = [Answer(lines=lines)]
    done = call("ask", "-m", server.url, "hello", "--json")
    server.close()
    start, token, over, end = map(json.loads, done.stdout.splitlines())
    assert start["prompt_tokens"] is end["prompt_tokens"] is None
    assert (token["id"], token["text"], token["rank"], token["logprob"]) == (None, "Hi", 1, -0.5)
    assert (over["text"], over["logprob"], over["rank"]) == ("", None, None)
    assert end["finish_reason"] == "stop"


def test_what_is_no_address_and_what_is_off_line(call: Call) -> None:
    assert "no password" in one_line(call("ask", "-m", "http://me:pw@host/v1", "x"), 1)
    refused = call("ask", "-m", "http://example.invalid/v1#m", "x", "--offline")
    assert "offline" in one_line(refused, 1)
