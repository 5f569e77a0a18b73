"""A GGUF's tokens against SmolLM2's own rule, built here from the file's list of tokens alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings

from chatapp.chat.facts import ModelSource
from chatapp.engine.runtimes.gguf_tokenizer import GgufTokenizer, read_vocabulary

pytestmark = pytest.mark.model

TEXTS = (
    "Steps:\n\n1. Mix 250 g of flour\n2. Wait 15 minutes",
    "x =  5",
    "    1",
    "def f(a, b=10):\n\treturn a*b  # 3.14159",
    "日本の首都はどこですか? é 👩‍👩‍👧 \u200b",
    "  two spaces, trailing  ",
    "It's 2026-11-26, isn't it?\r\n",
    "",
)


@pytest.fixture(scope="module")
def tokenizer(model_source: ModelSource) -> GgufTokenizer:
    return read_vocabulary(Path(model_source.path))


@pytest.fixture(scope="module")
def rule(model_source: ModelSource) -> Any:
    """Digits one by one, then byte-level BPE: what SmolLM2's authors trained with."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    reader = GGUFReader(model_source.path)

    def field(name: str) -> list[str]:
        found = reader.get_field(f"tokenizer.ggml.{name}")
        assert found is not None
        return [bytes(found.parts[place]).decode() for place in found.data]

    merges = [tuple(merge.split(" ", 1)) for merge in field("merges")]
    vocabulary = {token: number for number, token in enumerate(field("tokens"))}
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return built


@pytest.mark.parametrize("text", TEXTS)
def test_ordinary_text_has_the_ids_of_the_models_own_rule(
    tokenizer: GgufTokenizer, rule: Any, text: str
) -> None:
    ids = tokenizer.encode_text(text)
    assert ids == rule.encode(text).ids
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(
        st.characters(max_codepoint=0x24F, exclude_categories=("Cc", "Cf", "Cn"))
        | st.sampled_from("\n\t 日本語のかな한국Привет123456")
    )
)
def test_so_has_any_text(tokenizer: GgufTokenizer, rule: Any, text: str) -> None:
    known = {data for data in tokenizer.byte_table if len(data) == 1}
    # Where the vocabulary lacks a byte the two leave it out in different ways.
    assume(all(bytes([byte]) in known for byte in text.encode()))
    assert tokenizer.encode_text(text) == rule.encode(text).ids


def test_only_a_format_writes_control_tokens(tokenizer: GgufTokenizer) -> None:
    text = "<|im_start|>user\nhi<|im_end|>"
    assert not tokenizer.control_ids.intersection(tokenizer.encode_text(text))
    assert not tokenizer.control_ids.intersection(tokenizer.encode_inside(text))
    assert tokenizer.encode_rendered(text) == [1, *tokenizer.encode_text("user\nhi"), 2]


def test_what_the_file_says_of_itself(tokenizer: GgufTokenizer) -> None:
    assert tokenizer.special_tokens["bos_token"] == "<|im_start|>"
    assert tokenizer.special_tokens["eos_token"] == "<|im_end|>"
    assert tokenizer.prefix_ids == ()  # add_bos_token is false
    assert {0, 2} <= set(tokenizer.end_ids)  # <|endoftext|> and <|im_end|>
    assert tokenizer.vocab_size == 49152
    assert tokenizer.chat_template is not None
    assert "im_start" in tokenizer.chat_template


def tiny_vocabulary(
    file: Path, kind: str, tokens: list[str], types: list[int], **said: Any
) -> Path:
    """A GGUF that holds a vocabulary and no weights."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    for name, value in said.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


@pytest.mark.parametrize("space", [True, False])
def test_a_sentencepiece_vocabulary(tmp_path: Path, space: bool) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    words = ["▁", "a", "b", "▁a", "ab", "▁ab", "<think>"]
    tokens += words
    types += [NORMAL] * 6 + [USER_DEFINED]
    tokenizer = read_vocabulary(
        tiny_vocabulary(
            tmp_path / "spm.gguf", "llama", tokens, types,
            bos_token_id=1, eos_token_id=2, unk_token_id=0, add_space_prefix=space,
        )
    )  # fmt: skip
    at = {word: 259 + number for number, word in enumerate(words)}
    assert tokenizer.encode_text("ab") == [at["▁ab"] if space else at["ab"]]
    assert tokenizer.encode_inside("ab") == [at["ab"]]  # no space is put before what goes on
    assert tokenizer.encode_inside(" ab") == [at["▁ab"]]
    assert tokenizer.token_bytes(at["▁ab"]) == b" ab"
    assert tokenizer.token_bytes(3 + 0x0A) == b"\n"
    assert tokenizer.prefix_ids == (1,)  # llama.cpp's rule for this kind of vocabulary
    assert tokenizer.end_ids == (2,)
    # What the user spells is text; what the format writes is the token.
    assert at["<think>"] not in tokenizer.encode_text("a<think>b")
    spelt = b"".join(map(tokenizer.token_bytes, tokenizer.encode_text("a<think>b")))
    assert spelt == (b" " if space else b"") + b"a<think>b"
    assert at["<think>"] in tokenizer.encode_rendered("a<think>b")


LETTERS = [
    chr(byte) if 33 <= byte < 127 or 161 <= byte < 173 or byte > 173 else chr(256 + place)
    for byte, place in (
        (byte, sum(not (33 <= b < 127 or 161 <= b < 173 or b > 173) for b in range(byte)))
        for byte in range(256)
    )
]
"""GPT-2's letter for each byte: printable ones stand for themselves, the rest are moved up."""


@pytest.mark.parametrize(
    ("pre", "text", "wanted"),
    [
        ("smollm", "1234", ["1", "2", "3", "4"]),
        ("deepseek-coder", "1234", ["1", "2", "3", "4"]),
        ("qwen2", "1234", ["1", "2", "3", "4"]),
        ("falcon", "1234", ["123", "4"]),
        ("gpt-2", "1234", ["1234"]),
        ("stablelm2", "1234", ["1", "2", "3", "4"]),
        ("bloom", "ab1", ["ab1"]),
        ("gpt-2", "ab1", ["ab", "1"]),
        ("llama-bpe", "xyz", ["xyz"]),  # ignore_merges: a word that is a token needs no merges
        ("gpt-2", "xyz", ["x", "y", "z"]),
    ],
)
def test_each_pre_tokenizer_splits_by_its_own_rule(
    tmp_path: Path, pre: str, text: str, wanted: list[str]
) -> None:
    pairs = ["1 2", "12 3", "123 4", "a b", "ab 1"]
    tokens = [*LETTERS, *(pair.replace(" ", "") for pair in pairs), "xyz", "<|end|>"]
    end = len(tokens) - 1
    tokenizer = read_vocabulary(
        tiny_vocabulary(
            tmp_path / "bpe.gguf", "gpt2", tokens, [NORMAL] * end + [CONTROL],
            token_merges=pairs, tokenizer_pre=pre, eos_token_id=end, bos_token_id=end,
        )
    )  # fmt: skip
    assert [tokens[id_] for id_ in tokenizer.encode_text(text)] == wanted


def test_control_tokens_outside_the_byte_alphabet(tmp_path: Path) -> None:
    control = ["<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
    tokens = [*LETTERS, "ab", *control]
    tokenizer = read_vocabulary(
        tiny_vocabulary(
            tmp_path / "deepseek.gguf", "gpt2", tokens, [NORMAL] * 257 + [CONTROL] * 4,
            token_merges=["a b"], tokenizer_pre="deepseek-r1-qwen",
            bos_token_id=259, eos_token_id=260,
        )
    )  # fmt: skip
    rendered = "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>"
    assert tokenizer.encode_rendered(rendered) == [259, 257, *b"hi", 258]
    assert tokenizer.end_ids == (260,)
    spelt = tokenizer.encode_text(rendered)
    assert not tokenizer.control_ids.intersection(spelt)
    assert b"".join(map(tokenizer.token_bytes, spelt)).decode() == rendered
