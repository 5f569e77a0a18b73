"""Conversations out of the store and back in again."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.errors import ImportFailed, UsageError
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.store.chats import Chats
from chatapp.store.formats.export_file import (
    COLUMNS,
    EXPORT_FORMATS,
    export_csv,
    export_jsonl,
    export_text,
    find_export_format,
)
from chatapp.store.formats.export_html import export_html
from chatapp.store.formats.export_markdown import closed, export_markdown
from chatapp.store.formats.import_file import import_text
from chatapp.store.formats.own_json import export_json
from chatapp.store.unicode import well_formed
from tests.store.samples import make_conversation, make_message, make_reply
from tests.store.test_packing import record

NOW = 1_700_000_000.0

anything = st.text(st.characters(exclude_categories=()), max_size=8)
moment = st.floats(0, 4e9)
reply = st.builds(
    Reply,
    model=anything,
    model_sha256=anything,
    seed=st.integers(0, 2**70),
    prompt_ids=st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
    cached_tokens=st.integers(0, 2**40),
    records=st.lists(record, max_size=2).map(tuple),
    sampling=st.lists(
        st.builds(
            SamplingSpan,
            st.integers(0, 1000),
            st.builds(
                SamplingParams,
                temperature=st.floats(0, 5),
                top_k=st.integers(0, 100),
                logit_bias=st.just(((1, -math.inf),)) | st.just(()),
                end=st.sampled_from(("allow", "forbid", "force")),
            ),
        ),
        max_size=2,
    ).map(tuple),
    finish_reason=st.none() | st.sampled_from(FinishReason),
    error=anything,
    seconds=st.floats(0, 1e9),
    time_to_first_token=st.floats(0, 1e9),
)


@st.composite
def trees(draw: st.DrawFn) -> Conversation:
    """Any tree: any text, any replies, some messages deleted."""
    messages: dict[str, Message] = {}
    for number in range(draw(st.integers(0, 6))):
        id_ = f"m{number}" + draw(st.text(max_size=3))
        messages[id_] = Message(
            id=id_,
            parent=draw(st.sampled_from([None, *messages])),
            role=draw(st.sampled_from(("system", "user", "assistant"))),
            text=draw(anything),
            created=draw(moment),
            reply=draw(st.none() | reply),
            deleted=draw(st.none() | st.none() | moment),
        )
    conversation = Conversation(
        id="c" + draw(st.text(max_size=3)),
        created=draw(moment),
        title=draw(anything),
        template=draw(anything),
        system=draw(anything),
        format=draw(anything),
        stop=draw(st.lists(anything, max_size=2).map(tuple)),
        model=draw(anything),
        messages=MappingProxyType(messages),
    )
    shown = [None, *(id_ for id_ in messages if conversation.visible(id_))]
    return replace(conversation, leaf=draw(st.sampled_from(shown)))


quiet = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@quiet
@given(st.lists(trees(), max_size=2))
def test_export_import_export_is_byte_identical(conversations: list[Conversation]) -> None:
    first = export_json(conversations)
    back = import_text(first.encode(), NOW).conversations
    assert export_json(back) == first
    json.loads(first, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@quiet
@given(trees())
def test_export_import_export_through_the_store_is_byte_identical(
    two_stores: tuple[Chats, Chats], conversation: Conversation
) -> None:
    here, there = two_stores
    id_ = here.add(conversation).id
    exported = export_json([here.load(id_).conversation])
    (back,) = import_text(exported.encode(), NOW).conversations
    outcome = there.add(back)
    again = export_json([replace(there.load(outcome.id).conversation, id=id_)])
    assert again == exported
    assert there.add(back).new is (outcome.id != id_)


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Chats, Chats]:
    from chatapp.store.database import Database

    folder = tmp_path_factory.mktemp("exchange")
    return (Chats(Database(folder / "here.db")), Chats(Database(folder / "there.db")))


@quiet
@given(trees())
def test_every_form_takes_every_conversation(conversation: Conversation) -> None:
    for form in EXPORT_FORMATS.values():
        export_text([conversation], form).encode()


@given(anything)
def test_settled_text_is_utf8_and_settling_changes_it_once(text: str) -> None:
    settled = well_formed(text)
    assert settled.encode().decode() == settled
    assert well_formed(settled) == settled
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert settled == text


def test_an_import_of_what_is_here_changes_nothing(chats: Chats) -> None:
    conversation = make_conversation()
    assert chats.add(conversation).new
    assert not chats.add(conversation).new
    chats.delete("c1")
    assert not chats.add(conversation).new
    assert len(chats.list_conversations()) == 1
    other = chats.add(replace(conversation, title="changed"))
    assert other.new
    assert other.id != "c1"
    assert chats.load(other.id).conversation.title == "changed"
    assert chats.load("c1").conversation == conversation


def test_numbers_beyond_single_precision_are_the_same_conversation_still(chats: Chats) -> None:
    plain = make_conversation(turns=1, tokens=2)
    old = plain.messages["c1-a0"]
    assert old.reply is not None
    records = tuple(replace(record, prob=1 / 3) for record in old.reply.records)
    precise = plain.with_message(replace(old, reply=replace(old.reply, records=records)))
    assert chats.add(precise).new
    assert not chats.add(precise).new


def ours(**changes: object) -> bytes:
    document = json.loads(export_json([make_conversation(turns=1, tokens=1)]))
    document["conversations"][0].update(changes)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe", "not a UTF-8 text"),
        (b"hello", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
        (b"[]", "neither"),
        (b"{}", "neither"),
        (b"3", "neither"),
        (b'{"chatapp": "conversations"}', "which version"),
        (b'{"chatapp": "conversations", "version": 99}', "newer chatapp"),
        (b'{"chatapp": "conversations", "version": 1}', "list of conversations"),
        (b'{"chatapp": "conversations", "version": 1, "conversations": [1]}', "no list"),
        (ours(title=5), r"conversation 1: Expected `str`, got `int` - at `\$.title`"),
        (ours(leaf="gone"), "current message gone is missing"),
        (ours(created=-5), "before 1970"),
        (ours(created={"float": "inf"}), "after the year 9999"),
        (ours(created={"float": "much"}), "conversation 1"),
        (ours(messages=[{"id": "a"}]), "conversation 1: Object missing required field"),
        (b'[{"role": "user"}]', "no message"),
        (b'[{"role": "user", "content": "x"}, 5]', "message 2: it has no role"),
        (b'[{"messages": []}, {"messages": 5}]', "conversation 2"),
        (b'[{"mapping": {}}, {}]', "conversation 2 has no mapping"),
        (b'[{"mapping": {"a": {"parent": "a"}}}]', "no message"),
    ],
)
def test_what_cannot_be_imported_is_said(data: bytes, words: str) -> None:
    with pytest.raises(ImportFailed, match=words) as raised:
        import_text(data, NOW)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: {"messages": m}, lambda m: [{"messages": m}]]
)
def test_message_lists_in_all_their_forms(wrap: Callable[[Any], Any]) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": None},
        {"role": "system", "content": "Now in French."},
        {"role": "user", "content": "\ud83d\ude00 half \ud83d"},
    ]
    found = import_text(json.dumps(wrap(messages)).encode(), NOW)
    (conversation,) = found.conversations
    assert conversation.system == "Be brief.\n\nBe kind."
    assert [(m.role, m.text) for m in conversation.path()] == [
        ("user", "Hello there"),
        ("assistant", "Hi"),
        ("system", "Now in French."),
        ("user", "😀 half \ufffd"),
    ]
    assert found.left_out == 2
    assert (conversation.title, conversation.created) == ("Hello there", NOW)


def test_message_lists_as_json_lines() -> None:
    line = '{"messages": [{"role": "user", "content": "one"}]}\n'
    found = import_text(f"\ufeff{line}\n{line}".encode(), NOW)
    assert [c.path()[0].text for c in found.conversations] == ["one", "one"]


def chatgpt_node(
    id_: str, parent: str | None, children: list[str], role: str = "", *parts: Any, **more: Any
) -> dict[str, Any]:
    message = None
    if role:
        content = {"content_type": "text", "parts": list(parts)} | more
        message = {"id": id_, "author": {"role": role}, "create_time": 5.5, "content": content}
    return {"id": id_, "parent": parent, "children": children, "message": message}


def chatgpt_export() -> list[dict[str, Any]]:
    nodes = [
        chatgpt_node("a2", "q", [], "assistant", "second answer"),  # out of order on purpose
        chatgpt_node("root", None, ["sys"]),
        chatgpt_node("sys", "root", ["q"], "system", ""),
        chatgpt_node("q", "sys", ["a1", "a2", "code"], "user", "question", {"asset": 1}),
        chatgpt_node("a1", "q", ["q2"], "assistant", "first answer"),
        chatgpt_node("code", "q", ["tool"], "assistant", "import os", content_type="code"),
        chatgpt_node("tool", "code", ["a3"], "tool", "result"),
        chatgpt_node("a3", "tool", [], "assistant", "third answer"),
        chatgpt_node("q2", "a1", [], "user", "again"),
        chatgpt_node("loop", "loop", ["loop"], "user", "never reached"),
    ]
    return [
        {
            "title": "A  title",
            "create_time": 3.0,
            "conversation_id": "conv-1",
            "default_model_slug": "gpt-9",
            "current_node": "tool",
            "mapping": {node["id"]: node for node in nodes},
        }
    ]


def test_chatgpts_tree_comes_in_as_a_tree(chats: Chats) -> None:
    found = import_text(json.dumps(chatgpt_export()).encode(), NOW)
    (conversation,) = found.conversations
    conversation.check()
    assert (conversation.id, conversation.title, conversation.model, conversation.created) == (
        "conv-1",
        "A title",
        "gpt-9",
        3.0,
    )
    assert [m.id for m in conversation.children("q")] == ["a1", "a2", "a3"]
    assert [m.text for m in conversation.at("q2").path()] == ["question", "first answer", "again"]
    assert conversation.leaf == "q"  # the nearest that was kept above the current node
    assert conversation.messages["q"].created == 5.5
    assert found.left_out == 2
    assert chats.add(conversation).new
    (again,) = import_text(json.dumps(chatgpt_export()).encode(), NOW + 1).conversations
    assert not chats.add(again).new


def test_a_current_node_that_is_missing_means_the_newest() -> None:
    document = chatgpt_export()
    document[0]["current_node"] = "nowhere"
    (conversation,) = import_text(json.dumps(document).encode(), NOW).conversations
    assert conversation.leaf == "a3"


def test_markdown_tells_the_current_path() -> None:
    conversation = replace(make_conversation(turns=1), system="Be kind.", title="Two\nlines")
    cut = make_message("cut", "c1-a0", "Look:\n```python\nprint(1)")
    text = export_markdown(conversation.with_message(cut))
    assert text == (
        "# Two lines\n\n*1970-01-01 00:16 UTC · SmolLM2*\n\n## System\n\nBe kind.\n\n"
        "## You\n\nquestion number 0\n\n## Assistant\n\n"
        f"{conversation.messages['c1-a0'].text}\n\n"
        "## You\n\nLook:\n```python\nprint(1)\n```\n"
    )


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("plain", ""),
        ("```\ncode", "\n```"),
        ("```\ncode\n```", ""),
        ("~~~~\n```\n~~~", "\n~~~~"),
        ("```a`b\ntext", ""),
        ("````\n```\nin\n```", "\n````"),
        ("    ```\nindented", ""),
    ],
)
def test_an_open_fence_is_closed(text: str, end: str) -> None:
    assert closed(text) == text + end


def test_jsonl_has_a_start_the_tokens_and_an_end_for_each_reply() -> None:
    conversation = make_conversation(turns=2, tokens=3)
    lines = [json.loads(line) for line in export_jsonl(conversation).splitlines()]
    assert [line["type"] for line in lines] == ["start", "token", "token", "token", "end"] * 2
    assert lines[0]["seed"] == 0
    assert "".join(line["text"] for line in lines[1:4]) == lines[4]["text"]
    assert len(lines[1]["top_logprobs"]) == 20


def test_csv_has_a_row_a_token() -> None:
    conversation = make_conversation(turns=1, tokens=3)
    odd = conversation.messages["c1-a0"]
    assert odd.reply is not None
    first = replace(odd.reply.records[0], text='a "quoted",\n=line', logprob=-math.inf)
    records = (first, *odd.reply.records[1:])
    message = replace(odd, reply=replace(odd.reply, records=records))
    rows = list(csv.DictReader(io.StringIO(export_csv(conversation.with_message(message)))))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["text"] == first.text
    assert rows[0]["logprob"] == ""
    assert float(rows[1]["prob"]) == records[1].prob
    assert bytes.fromhex(rows[1]["bytes"]) == records[1].bytes
    assert {row["message"] for row in rows} == {"c1-a0"}


SAFE_TAGS = {"html", "head", "meta", "title", "style", "body"} | {
    "h1",
    "h2",
    "p",
    "div",
    "span",
    "section",
}


class Page(HTMLParser):
    """What a browser makes of the page: tags, attributes, and the text outside the candidates."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.classes: list[str] = []
        self.open: list[str] = []
        self.token_text = ""
        self.details = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.classes.append(dict(attrs).get("class") or "")
        if tag not in ("meta",):
            self.open.append(self.classes[-1] or tag)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "c":
            self.details += data
        elif self.open and self.open[-1].startswith("t "):
            self.token_text += data


def hostile(text: str) -> TokenRecord:
    original = make_reply(1, candidates=2).records[0]
    raw = text.encode()
    weighed = tuple(replace(c, bytes=raw, token=text) for c in original.candidates)
    return replace(original, text=text, token=text, bytes=raw, candidates=weighed)


def test_html_colours_every_token_and_shows_its_candidates() -> None:
    conversation = make_conversation(turns=1, tokens=4)
    page = Page(export_html(conversation))
    answer = conversation.messages["c1-a0"]
    assert answer.reply is not None
    assert page.token_text == answer.text
    assert page.classes.count("c") == 4
    assert page.open == []
    assert page.details.count("others") == 4
    for candidate in answer.reply.records[0].candidates:
        assert candidate.token.strip() in page.details
    assert "cut by min_p 0.05" in page.details
    assert "script" not in page.tags
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in page.attributes)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</style>&amp;<!--",
        "a\x1b[31m",
    ],
)
def test_html_shows_hostile_text_as_text(text: str) -> None:
    conversation = replace(
        make_conversation(turns=1, tokens=1), title=text, system=text, model=text
    )
    old = conversation.messages["c1-a0"]
    assert old.reply is not None
    evil = replace(old, reply=replace(old.reply, records=(hostile(text),), model=text))
    html = export_html(
        conversation.with_message(evil).with_message(make_message("x", old.id, text))
    )
    page = Page(html)
    assert set(page.tags) == SAFE_TAGS
    assert page.tags.count("style") == 1
    assert "\x1b" not in html
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_the_form_follows_the_files_ending() -> None:
    assert find_export_format("a/b.chat.HTML").name == "html"
    assert find_export_format("notes.markdown").name == "md"
    assert find_export_format("csv").name == "csv"
    with pytest.raises(UsageError, match="there are json, md, html, jsonl, csv"):
        find_export_format("a.docx")
    two = [make_conversation("c1"), make_conversation("c2")]
    with pytest.raises(UsageError, match="only json"):
        export_text(two, EXPORT_FORMATS["md"])
    assert (
        len(import_text(export_text(two, EXPORT_FORMATS["json"]).encode(), NOW).conversations) == 2
    )


def test_a_loaded_conversation_exports_like_the_one_that_was_saved(
    chats: Chats, tmp_path: Path
) -> None:
    conversation = make_conversation()
    chats.add(conversation)
    loaded = chats.load("c1").conversation
    for form in EXPORT_FORMATS.values():
        assert export_text([loaded], form) == export_text([conversation], form)
