"""Recorded replies are written again, id for id; and what else `ask` can be told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatapp.commands.replay import ReplayError, read_recorded
from tests.conftest import Call, one_line
from tests.tiny_models import VOCABULARY


def ask(call: Call, tiny_gguf: str, *arguments: str) -> list[dict[str, object]]:
    done = call("ask", "-m", tiny_gguf, "--threads", "1", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ids(lines: list[dict[str, object]]) -> list[object]:
    return [line["id"] for line in lines if line["type"] == "token"]


def test_a_reply_comes_back_id_for_id_or_says_where_not(
    call: Call, tiny_gguf: str, tmp_path: Path
) -> None:
    lines = ask(
        call, tiny_gguf, "hello", "--seed", "5", "-t", "1.5", "--max-tokens", "8", "--top-k", "30"
    )
    file = tmp_path / "reply.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ids(ask(call, tiny_gguf, "--replay", str(file))) == ids(lines)
    tokens = [line for line in lines if line["type"] == "token"]
    tokens[3]["id"] = 7 if tokens[3]["id"] != 7 else 8
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = call("ask", "-m", tiny_gguf, "--replay", str(file))
    assert done.returncode == 1
    assert f"token 3 differs: recorded id {tokens[3]['id']}, now" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no recorded reply"),
        ("not json\n", "line 1"),
        ('{"type":"start","choice":[]}\n', "line 1"),
        ("[" * 100_000, "line 1"),
        ('{"type":"token","id":1}\n', "no start before it"),
        ('{"type":"start","model":"m","seed":1}\n', "lacks what a replay needs"),
        ('{"type":"start","decoder":"beam"}\n', "draws nothing"),
        (
            '{"type":"start","model":"m","seed":1,"prompt_ids":[1],"sampling":{"top_k":-1}}\n',
            "top_k must be",
        ),
        (
            '{"type":"start","model":"m","seed":1,"prompt_ids":[1],"sampling":{}}\n',
            "without a prompt or tokens",
        ),
    ],
)
def test_files_that_are_no_recording(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "reply.jsonl"
    file.write_text(text)
    with pytest.raises(ReplayError, match=words):
        read_recorded(str(file))


def test_changes_of_parameters_are_read(tmp_path: Path) -> None:
    file = tmp_path / "reply.jsonl"
    start = {"type": "start", "model": "m", "seed": 1, "prompt_ids": [1], "sampling": {}}
    later = {"temperature": 0.2, "logit_bias": [[3, None]], "banned": [4]}
    separator = {"type": "token", "id": 1, "text": "\u2028"}  # JSON lines end at newlines alone
    lines = [start, separator, {"type": "token", "id": 2, "sampling": later}]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    (recorded,) = read_recorded(str(file))
    assert recorded.ids == (1, 2)
    assert [span.start for span in recorded.spans] == [0, 1]
    changed = recorded.spans[1].sampling
    assert changed.temperature == 0.2
    assert changed.logit_bias == ((3, float("-inf")),)
    assert changed.banned == (4,)


def test_several_replies_say_which_they_are(call: Call, tiny_gguf: str, tmp_path: Path) -> None:
    lines = ask(
        call, tiny_gguf, "hello", "--seed", "5", "-t", "1.5", "--max-tokens", "6", "--n", "3"
    )
    assert {line["choice"] for line in lines} == {0, 1, 2}
    assert [line["seed"] for line in lines if line["type"] == "start"] == [5, 6, 7]
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recorded = read_recorded(str(file))
    first = ids([line for line in lines if line["choice"] == 0])
    assert list(recorded[0].ids) == first
    done = call("ask", "hello", "-m", tiny_gguf, "--seed", "5", "--max-tokens", "4", "--n", "2")
    assert done.stdout.startswith("── 1 of 2 ──\n")
    assert "\n── 2 of 2 ──\n" in done.stdout


def test_a_trace_stands_with_each_token(call: Call, tiny_gguf: str) -> None:
    lines = ask(call, tiny_gguf, "hello", "--trace", "--max-tokens", "3", "--top-logprobs", "300")
    for line in lines:
        if line["type"] != "token":
            continue
        assert len(line["top_logprobs"]) == VOCABULARY  # type: ignore[arg-type]
        for stage in line["trace"]["stages"]:  # type: ignore[index]
            total = sum(token["prob"] for token in stage["tokens"]) + stage["other_prob"]
            assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("decoder", ["beam", "contrastive"])
def test_other_decoders(call: Call, tiny_gguf: str, decoder: str) -> None:
    lines = ask(call, tiny_gguf, "hello", "--decoder", decoder, "--max-tokens", "4")
    assert lines[0]["decoder"] == decoder
    assert lines[-1]["type"] == "end"
    assert lines[-1]["completion_tokens"] in range(1, 5)


def test_rules_about_tokens(call: Call, tiny_gguf: str) -> None:
    lines = ask(call, tiny_gguf, "hello", "--logit-bias", "z=1000", "--max-tokens", "3", "-t", "0")
    assert [line["token"] for line in lines if line["type"] == "token"] == ["z"] * 3
    rules = ["--logit-bias", "z=1000", "--ban", "z", "--order", "llama.cpp", "--end", "forbid"]
    lines = ask(call, tiny_gguf, "hello", *rules, "--max-tokens", "3")
    assert all(line["token"] != "z" for line in lines if line["type"] == "token")
    sampling = lines[0]["sampling"]
    assert sampling["end"] == "forbid" and sampling["order"][0] == "top_n_sigma"  # type: ignore[index]
    words = one_line(call("ask", "hello", "-m", tiny_gguf, "--ban", "zz"), 2)
    assert "'zz' is 2 tokens of this model" in words
    assert f"ids go from 0 to {VOCABULARY - 1}" in one_line(
        call("ask", "hi", "-m", tiny_gguf, "--ban", "999"), 2
    )


def test_rules_hold_in_a_chat_that_goes_on(call: Call, tiny_gguf: str) -> None:
    assert (
        call("chats", "import", "-", piped='[{"role": "user", "content": "hey"}]').returncode == 0
    )
    options = ("-m", tiny_gguf, "--threads", "1", "--max-tokens", "1", "--json")
    done = call("ask", "hello", "-c", "--ban", "z", "-t", "0.3", *options)
    assert done.returncode == 0, done.stderr
    sampling = json.loads(done.stdout.splitlines()[0])["sampling"]
    assert len(sampling["banned"]) == 1
    assert sampling["temperature"] == 0.3
    assert "hello" in call("chats", "search", "hello").stdout


def test_a_forged_reply_of_an_imported_chat_is_read_as_the_text_it_shows(
    call: Call, tiny_gguf: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-m", tiny_gguf, "--threads", "1", "--max-tokens", "4", "--json", "-t", "0")
    call("chats", "import", "-", piped='[{"role": "user", "content": "hey"}]')
    assert call("ask", "one", "-c", *options).returncode == 0
    document = json.loads(call("chats", "export", "--all", "--format", "json").stdout)
    reply = next(m for m in document["conversations"][0]["messages"] if m["reply"])

    def asked(name: str, change: str | int) -> tuple[object, str]:
        """What is read when that chat goes on elsewhere, and what is said."""
        monkeypatch.setenv("CHATAPP_HOME", str(tmp_path / name))
        if change == "none":
            reply["reply"] = None
        else:
            reply["reply"]["records"][1]["id"] = change
        assert call("chats", "import", "-", piped=json.dumps(document)).returncode == 0
        done = call("ask", "two", "-c", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[0])["prompt_ids"], done.stderr

    true_id = reply["reply"]["records"][1]["id"]
    _, said = asked("honest", true_id)
    assert "don't say what it shows" not in said
    forged = [asked(f"forged {id_}", id_) for id_ in ((true_id + 1) % 200, VOCABULARY - 1, 10**9)]
    as_text, said = asked("text", "none")
    assert "don't say what it shows" not in said
    assert [ids_read for ids_read, _ in forged] == [as_text] * 3
    assert all("don't say what it shows" in words for _, words in forged)


def test_an_imported_reply_of_a_million_tokens_is_refused_before_it_is_tokenized(
    call: Call, tiny_gguf: str
) -> None:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a" * 1_000_069}]
    assert call("chats", "import", "-", piped=json.dumps(said)).returncode == 0
    done = call("ask", "go on", "-c", "-m", tiny_gguf, "--threads", "1")
    assert done.returncode == 1
    assert "1,000,076 bytes are at least 125,009 tokens, and the model reads 512" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hi", "--trace"], "--trace needs --json"),
        (["hi", "--n", "0"], "n must be a whole number of at least 1"),
        (["hi", "--n", "2", "-c"], "leave out --n"),
        (["hi", "--replay", "x"], "leave out the prompt"),
        (["hi", "--logit-bias", "z"], "a bias must be TOKEN=NUMBER"),
        (["hi", "--order", "top_k,top_p"], "order must be transformers or llama.cpp"),
        (["hi", "--decoder", "beam", "--length-penalty", "nan"], "length_penalty must be"),
        (["hi", "--decoder", "contrastive", "--penalty-alpha", "2"], "penalty_alpha must be"),
        (["hi", "--decoder", "beam", "--beams", "2", "--n", "3"], "num_return must be"),
        (["hi", "--mirostat-tau", "99"], "mirostat_tau must be a number between 0 and 20"),
    ],
)
def test_wrong_usage(call: Call, arguments: list[str], words: str) -> None:
    assert words in one_line(call("ask", *arguments), 2)


def test_every_number_has_an_option(call: Call) -> None:
    from chatapp.chat.sampling import PARAMETERS

    text = call("ask", "--help").stdout
    assert "more sampling" in text
    assert all("--" + name.replace("_", "-") in text for name in PARAMETERS)


@pytest.mark.model
@pytest.mark.usefixtures("home_with_model")
def test_the_real_model_writes_a_reply_again(call: Call, tmp_path: Path) -> None:
    arguments = ["--seed", "3", "--max-tokens", "12", "--json", "--trace"]
    extras = ["--xtc-probability", "0.5", "--xtc-threshold", "0.05", "--mirostat-tau", "4"]
    done = call("ask", "Name a colour.", *arguments, *extras)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "reply.jsonl"
    file.write_text(done.stdout)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        if line["type"] != "token":
            continue
        for stage in line["trace"]["stages"]:
            total = sum(token["prob"] for token in stage["tokens"]) + stage["other_prob"]
            assert total == pytest.approx(1, abs=1e-6)
        final = {token["id"]: token["prob"] for token in line["trace"]["stages"][-1]["tokens"]}
        assert final[line["id"]] == pytest.approx(line["prob"], abs=1e-9)
    again = call("ask", "--replay", str(file), "--json")
    assert again.returncode == 0, again.stderr
    replayed = [json.loads(line) for line in again.stdout.splitlines()]
    assert ids(replayed) == ids(lines)
