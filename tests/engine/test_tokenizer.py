"""The tokenizer: ids as transformers makes them, exact bytes, and text that is never control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from chatapp.chat.errors import EngineError
from chatapp.engine.prompt.control import ControlToken
from chatapp.engine.runtimes.folder_tokenizer import FolderTokenizer
from chatapp.engine.runtimes.tokenizer import LeadingSpace
from tests.engine.tiny_tokenizers import byte_level, save, sentencepiece, unigram

TINY = {
    "byte level": byte_level,
    "sentencepiece": sentencepiece,
    "sentencepiece, first": lambda: sentencepiece("first"),
    "unigram": unigram,
}
MADE = {name: FolderTokenizer(make()) for name, make in TINY.items()}

# Pieces of control tokens, so that chance puts whole ones together.
FRAGMENTS = ["<|", "im_", "end", "|>", "<|im_end|>", "<", "s>", "</s>", "<think>", "</", "think>"]
ordinary = st.text(st.characters(exclude_categories=["Cs"]))
tricky = st.lists(
    st.one_of(st.sampled_from([*FRAGMENTS, " ", "\n", "the", "hello", "é", "░", "🎉"]), ordinary)
).map("".join)


@pytest.mark.parametrize("name", TINY)
@given(text=tricky)
def test_text_never_becomes_a_control_token(name: str, text: str) -> None:
    tokenizer = MADE[name]
    unknown = {tokenizer.control_id("<unk>")}
    assert not (set(tokenizer.encode_text(text)) - unknown) & tokenizer.control_ids


@pytest.mark.parametrize("name", ["byte level", "sentencepiece", "sentencepiece, first"])
@given(text=tricky)
def test_bytes_are_those_of_the_text(name: str, text: str) -> None:
    tokenizer = MADE[name]
    data = b"".join(map(tokenizer.token_bytes, tokenizer.encode_text(text)))
    if name == "sentencepiece":
        data = data.removeprefix(b" ")  # put before every text by this family
    expected = text.replace("▁", " ") if "sentencepiece" in name else text
    if name == "sentencepiece, first" and not expected.startswith(" "):
        data = data.removeprefix(b" ")
    assert data.decode() == expected


@pytest.mark.parametrize("name", ["byte level", "sentencepiece", "sentencepiece, first"])
@given(text=tricky)
def test_text_that_goes_on_in_a_reply_is_just_what_is_typed(name: str, text: str) -> None:
    tokenizer = MADE[name]
    ids = tokenizer.encode_inside(text)
    assert not set(ids) & tokenizer.control_ids
    expected = text.replace("▁", " ") if "sentencepiece" in name else text
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == expected


@pytest.mark.parametrize("name", TINY)
def test_every_control_token_is_text_when_a_person_types_it(name: str) -> None:
    tokenizer = MADE[name]
    assert tokenizer.controls
    for token in tokenizer.controls:
        ids = tokenizer.encode_text(f"a{token.content}b {token.content}")
        assert token.id not in ids
        assert token.id in tokenizer.encode_rendered(f"a {token.content} b")


def test_control_tokens_are_all_added_tokens_but_whitespace() -> None:
    controls = {token.content: token for token in MADE["byte level"].controls}
    assert set(controls) == {
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "░",
        "<|strip|>",
    }
    assert not controls["<think>"].special
    assert MADE["byte level"].control_id("<|im_end|>") == controls["<|im_end|>"].id
    assert MADE["byte level"].control_id("<|im_end|> ") is None


def test_ordinary_added_tokens_keep_their_ids() -> None:
    tokenizer = MADE["byte level"]
    assert tokenizer.encode_text("a    b") == tokenizer.encode_rendered("a    b")
    assert len(tokenizer.encode_text("    ")) == 1


@pytest.mark.parametrize("name", TINY)
@given(data=st.data())
def test_a_split_prompt_has_the_ids_of_the_whole(name: str, data: st.DataObject) -> None:
    tokenizer = MADE[name]
    controls = [token.content for token in tokenizer.controls]
    words = st.sampled_from([*controls, " ", "\n", "  ", "the", "hello", "hi the", "x"])
    text = "".join(data.draw(st.lists(words)))
    assume("    " not in text)  # an added token of whitespace survives beside one that strips it
    segments = tokenizer.pattern.split(text)
    assert tokenizer.encode_segments(segments) == tokenizer.encode_rendered(text)


def test_control_tokens_may_swallow_whitespace() -> None:
    tokenizer = MADE["byte level"]
    parts = tokenizer.pattern.split("a \n<|strip|>  b")
    assert [part.content if isinstance(part, ControlToken) else part for part in parts] == [
        "a",
        "<|strip|>",
        "b",
    ]


def test_text_after_exact_ids_gets_no_space_of_its_own() -> None:
    tokenizer = MADE["sentencepiece"]
    ids = tokenizer.encode_segments([(5,), "hi"])
    assert b"".join(map(tokenizer.token_bytes, ids[1:])) == b"hi"


def test_bytes_of_the_families() -> None:
    pieces = MADE["sentencepiece"]
    ids = pieces.encode_text("the é")
    assert [pieces.piece(token_id).token for token_id in ids] == [" the", " ", "\\xc3", "\\xa9"]
    assert pieces.leading_space is LeadingSpace.DROP_ONE
    assert MADE["unigram"].leading_space is LeadingSpace.DROP_OF_FIRST_TOKEN
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.decoder = decoders.WordPiece()
    made = FolderTokenizer(words)
    assert [made.token_bytes(i) for i in made.encode_text("playing")] == [b" play", b"ing"]


def test_pieces_say_what_a_token_is() -> None:
    tokenizer = MADE["byte level"]
    end = tokenizer.control_id("<|im_end|>")
    assert end is not None
    piece, e_acute = tokenizer.pieces([end, tokenizer.encode_text("é")[0]])
    assert (piece.token, piece.bytes, piece.control) == ("<|im_end|>", b"<|im_end|>", True)
    assert (e_acute.token, e_acute.bytes, e_acute.control) == ("\\xc3", b"\xc3", False)
    assert tokenizer.token_bytes(10**6) == b"" == tokenizer.token_bytes(-1)
    assert tokenizer.vocab_size == max(token.id for token in tokenizer.controls) + 1


def test_lone_surrogates_are_encoded_as_question_marks() -> None:
    tokenizer = MADE["byte level"]
    assert tokenizer.encode_text("a\ud800b") == tokenizer.encode_text("a?b")


@pytest.mark.parametrize(
    ("config", "prefix"),
    [({}, ["<s>"]), ({"add_bos_token": False}, []), ({"add_bos_token": True}, ["<s>"])],
)
def test_bos_is_what_the_files_say(
    tmp_path: Path, config: dict[str, bool], prefix: list[str]
) -> None:
    folder = save(sentencepiece(), tmp_path, bos_token="<s>", eos_token="</s>")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    tokenizer = FolderTokenizer.from_folder(folder)
    assert [tokenizer.piece(i).token for i in tokenizer.prefix_ids] == prefix
    assert (tokenizer.token_id(tokenizer.special_tokens["bos_token"]), tokenizer.eos_id) == (1, 2)


def test_models_without_bos_get_none(tmp_path: Path) -> None:
    folder = save(byte_level(), tmp_path, bos_token="<|im_start|>", add_bos_token=True)
    # A file that asks for BOS is obeyed, whatever the tokenizer itself does.
    assert FolderTokenizer.from_folder(folder).prefix_ids
    assert MADE["byte level"].prefix_ids == ()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chat_template.jinja", "own"),
        ("tokenizer_config.json", json.dumps({"chat_template": "own"})),
        (
            "tokenizer_config.json",
            json.dumps(
                {
                    "chat_template": [
                        {"name": "tool_use", "template": "tools"},
                        {"name": "default", "template": "own"},
                    ]
                }
            ),
        ),
        ("chat_template.json", json.dumps({"chat_template": "own"})),
    ],
)
def test_the_chat_template_is_found_wherever_it_is(tmp_path: Path, file: str, content: str) -> None:
    folder = save(byte_level(), tmp_path)
    (folder / file).write_text(content)
    assert FolderTokenizer.from_folder(folder).chat_template == "own"


def test_special_tokens_may_be_objects(tmp_path: Path) -> None:
    folder = save(byte_level(), tmp_path)
    config = {"eos_token": {"content": "<|im_end|>", "lstrip": False}, "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = FolderTokenizer.from_folder(folder)
    assert tokenizer.special_tokens == {"eos_token": "<|im_end|>"}


def test_padding_and_truncation_in_the_file_are_ignored(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    folder = save(backend, tmp_path)
    assert len(FolderTokenizer.from_folder(folder).encode_text("abcdefgh")) == 8


def test_a_folder_of_vocab_and_merges_is_read_through_transformers(tmp_path: Path) -> None:
    state = json.loads(byte_level().to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(state["vocab"]))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in state["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer"})
    )
    tokenizer = FolderTokenizer.from_folder(tmp_path)
    ids = tokenizer.encode_text("hello the")
    assert [tokenizer.piece(token_id).token for token_id in ids] == ["hello", " the"]
    assert tokenizer.eos_id == tokenizer.control_id("<|endoftext|>") is not None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "{"),
        ("chat_template.jinja", b"\xff\xfe"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: str | bytes) -> None:
    folder = save(byte_level(), tmp_path)
    data = content if isinstance(content, bytes) else content.encode()
    (folder / file).write_bytes(data)
    with pytest.raises(EngineError, match=file) as caught:
        FolderTokenizer.from_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has no tokenizer") as caught:
        FolderTokenizer.from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_added_token_reads_as_it_is_written() -> None:
    backend = byte_level()
    backend.add_tokens([AddedToken("é!", special=False, normalized=False)])
    tokenizer = FolderTokenizer(backend)
    token_id = tokenizer.control_id("é!")
    assert token_id is not None
    assert tokenizer.token_bytes(token_id) == "é!".encode()


@pytest.mark.model
def test_the_default_models_tokenizer(model_folder: Path) -> None:
    tokenizer = FolderTokenizer.from_folder(model_folder)
    assert tokenizer.vocab_size == 49152
    assert len(tokenizer.controls) == 17
    assert tokenizer.prefix_ids == ()
    everything = "".join(token.content for token in tokenizer.controls)
    ids = tokenizer.encode_text(everything)
    assert not set(ids) & tokenizer.control_ids
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == everything
