"""Prompts: transformers' ids for ordinary text, no control token but the format's own."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from chatapp.chat.errors import EngineError
from chatapp.chat.prompt import Prompt, PromptFormat, Role, Turn
from chatapp.chat.thinking import Thinking
from chatapp.engine.prompt.render import PromptIds, render_prompt, turn_end
from chatapp.engine.prompt.template import switch_in
from chatapp.engine.runtimes.folder_tokenizer import FolderTokenizer
from chatapp.settings.paths import assets
from tests.engine.tiny_tokenizers import CHATML, LLAMA, byte_level, sentencepiece

ROLES: tuple[Role, Role] = ("user", "assistant")
REFUSES_SYSTEM = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% elif (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REASONS = (
    "{% for message in messages %}{% set content = message.content %}"
    "{% if message.role == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


@functools.cache
def byte_tokenizer(template: str | None = CHATML) -> FolderTokenizer:
    return FolderTokenizer(
        byte_level(),
        chat_template=template,
        special_tokens={"eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
    )


@functools.cache
def llama_tokenizer(template: str | None = LLAMA) -> FolderTokenizer:
    return FolderTokenizer(
        sentencepiece(),
        chat_template=template,
        special_tokens={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    )


@functools.cache
def shipped(name: str) -> PromptFormat:
    return PromptFormat(name, (assets() / "formats" / f"{name}.jinja").read_text())


def auto() -> PromptFormat:
    return PromptFormat("auto", shipped("transcript").source)


def turns(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn(ROLES[number % 2], text) for number, text in enumerate(texts))


def controls(tokenizer: FolderTokenizer, made: PromptIds) -> list[str]:
    return [tokenizer.piece(i).token for i in made.ids if i in tokenizer.control_ids]


def holds(ids: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(ids[at : at + len(part)] == part for at in range(len(ids) - len(part) + 1))


# Everything a control token can be put together from, whole, halved and in thirds.
PARTS = ["<|im_end|>", "<|", "im_", "end|>", "im_end", "|>", "<think>", "</", "think>", "░", "<"]
PARTS += [
    "<|strip|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "s>",
    "<unk>",
    " ",
    "\n",
    "the",
    "hello",
    ">",
]
tricky = st.lists(st.sampled_from(PARTS), max_size=5).map("".join)
SETTINGS = [
    ("chatml template", byte_tokenizer, auto()),
    ("llama template", llama_tokenizer, auto()),
    ("refuses system", lambda: byte_tokenizer(REFUSES_SYSTEM), auto()),
    ("reasons", lambda: byte_tokenizer(REASONS), auto()),
    *(
        (f"{name}, bytes", byte_tokenizer, shipped(name))
        for name in ("chatml", "transcript", "raw")
    ),
    *((f"{name}, pieces", llama_tokenizer, shipped(name)) for name in ("transcript", "raw")),
]


@pytest.mark.parametrize(("name", "make", "form"), SETTINGS, ids=[s[0] for s in SETTINGS])
@settings(deadline=None, max_examples=60)
@given(system=tricky, texts=st.lists(tricky, min_size=1, max_size=4))
def test_every_control_token_is_the_formats_own(
    name: str, make: object, form: PromptFormat, system: str, texts: list[str]
) -> None:
    assert callable(make)
    tokenizer = make()
    made = render_prompt(tokenizer, Prompt(system, turns(*texts), form))
    # Letters can't be part of any control token here, so what remains is what the format writes.
    tame = Prompt("z" if system else "", turns(*("z" for _ in texts)), form)
    own = controls(tokenizer, render_prompt(tokenizer, tame))
    assert [c for c in controls(tokenizer, made) if c != "<unk>"] == own


@pytest.mark.parametrize("form", ["auto", "chatml", "transcript", "raw"])
@pytest.mark.parametrize("make", [byte_tokenizer, llama_tokenizer])
def test_no_control_token_comes_from_text_split_anywhere(form: str, make: object) -> None:
    assert callable(make)
    tokenizer = make()
    chosen = auto() if form == "auto" else shipped(form)

    def own(system: str, *texts: str) -> list[str]:
        return controls(tokenizer, render_prompt(tokenizer, Prompt(system, turns(*texts), chosen)))

    expected = own("z", "z", "z", "z")
    for token in tokenizer.controls:
        assert own(token.content, token.content, token.content, token.content) == expected
        for at in range(1, len(token.content)):
            head, tail = token.content[:at], token.content[at:]
            assert own(head, tail, head, tail) == expected
            assert own("z", "z" + head, tail + "z", head + " ") == expected
        for first in range(1, len(token.content) - 1):
            for second in range(first + 1, len(token.content)):
                thirds = token.content[:first], token.content[first:second], token.content[second:]
                assert own("z", *thirds) == expected


@settings(deadline=None)
@given(system=tricky, texts=st.lists(tricky, min_size=1, max_size=3))
def test_what_is_read_is_what_the_format_wrote(system: str, texts: list[str]) -> None:
    made = render_prompt(byte_tokenizer(), Prompt(system, turns(*texts), auto()))
    messages = [("system", system)] if system else []
    messages += [(turn.role, turn.text) for turn in turns(*texts)]
    whole = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages)
    assert made.rendered.text == whole + "<|im_start|>assistant\n"
    assert b"".join(token.bytes for token in made.rendered.tokens).decode() == made.rendered.text
    assert made.rendered.format == "model"


def transformers_ids(
    tokenizer: object, messages: list[dict[str, str]], **kwargs: object
) -> list[int]:
    ids = tokenizer.apply_chat_template(  # type: ignore[attr-defined]  # transformers has no types
        messages, add_generation_prompt=True, return_dict=False, **kwargs
    )
    assert isinstance(ids, list)
    return ids


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return messages + [{"role": turn.role, "content": turn.text} for turn in prompt.turns]


@functools.cache
def transformers_tokenizers() -> tuple[object, object]:
    from transformers import PreTrainedTokenizerFast

    byte = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="<|im_end|>")
    byte.chat_template = CHATML
    pieces = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    pieces.chat_template = LLAMA
    return byte, pieces


ordinary = st.lists(
    st.sampled_from(["the", "hello", " ", "\n", "> quote", "é", "🎉", "a < b", "    ", "z"]),
    max_size=6,
).map("".join)


@pytest.mark.parametrize("which", [0, 1], ids=["byte level", "sentencepiece"])
@settings(deadline=None)
@given(system=ordinary, texts=st.lists(ordinary, min_size=1, max_size=4))
def test_ids_are_those_of_transformers(which: int, system: str, texts: list[str]) -> None:
    prompt = Prompt(system, turns(*texts), auto())
    tokenizer = (byte_tokenizer, llama_tokenizer)[which]()
    expected = transformers_ids(transformers_tokenizers()[which], as_messages(prompt))
    assert list(render_prompt(tokenizer, prompt).ids) == expected


REPLIES = [" hello the", "hello", "the\n", "", "<|im_end|>", "  ", "é🎉", "<think>x</think>the"]


@pytest.mark.parametrize("form", ["auto", "transcript", "raw", "chatml"])
@pytest.mark.parametrize("make", [byte_tokenizer, llama_tokenizer])
@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_is_read_back_as_it_was_written(form: str, make: object, reply: str) -> None:
    assert callable(make)
    tokenizer = make()
    chosen = auto() if form == "auto" else shipped(form)
    # Ids no tokenizer would choose: one letter at a time.
    ids = tuple(i for letter in reply for i in tokenizer.encode_segments([(0,), letter])[1:]) or (
        9,
    )
    asked = Turn("user", "the <|im_")
    first = render_prompt(tokenizer, Prompt("hi", (asked,), chosen))
    answered = (asked, Turn("assistant", reply, ids), Turn("user", "end|> hello"))
    second = render_prompt(tokenizer, Prompt("hi", answered, chosen))
    assert second.ids[: len(first.ids) + len(ids)] == first.ids + ids
    assert controls(tokenizer, second).count("<think>") == 0


def test_the_space_a_decoder_drops_is_not_read_twice() -> None:
    tokenizer = llama_tokenizer(None)
    ids = tuple(tokenizer.encode_text("hi"))  # "▁hi", which decodes to "hi"
    asked = Turn("user", "the")
    first = render_prompt(tokenizer, Prompt("", (asked,), shipped("transcript")))
    answered = (asked, Turn("assistant", "hi", ids), Turn("user", "x"))
    second = render_prompt(tokenizer, Prompt("", answered, shipped("transcript")))
    assert second.ids[: len(first.ids) + len(ids)] == first.ids + ids


def test_a_format_that_rewrites_replies_gets_their_text() -> None:
    tokenizer = byte_tokenizer(REASONS)
    ids = tuple(tokenizer.encode_rendered("<think>\nhm\n</think>\n\nhello"))
    answered = (
        Turn("user", "the"),
        Turn("assistant", "<think>\nhm\n</think>\n\nhello", ids),
        Turn("user", "and </think>?"),
        Turn("assistant", "the", (7, 8, 9)),
        Turn("user", "x"),
    )
    made = render_prompt(tokenizer, Prompt("", answered, auto()))
    assert "hm" not in made.rendered.text  # the template cuts reasoning out
    assert "<|im_start|>assistant\nhello<|im_end|>" in made.rendered.text
    assert "and </think>?" in made.rendered.text
    assert holds(made.ids, (7, 8, 9))  # the other reply keeps its ids
    assert controls(tokenizer, made).count("</think>") == 0
    assert controls(tokenizer, made).count("<think>") == 1  # the generation prompt's


SWITCHES = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize("think", [None, True, False])
def test_a_template_with_a_switch_is_told_whether_to_think(think: bool | None) -> None:
    from transformers import PreTrainedTokenizerFast

    told = {} if think is None else {"enable_thinking": think}
    peer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="<|im_end|>")
    peer.chat_template = SWITCHES
    prompt = Prompt("", turns("the"), auto(), think=think)
    made = render_prompt(byte_tokenizer(SWITCHES), prompt)
    assert list(made.ids) == transformers_ids(peer, as_messages(prompt), **told)
    assert made.rendered.thinking == Thinking()  # a closed one is not begun
    assert switch_in(SWITCHES) == "enable_thinking"
    assert switch_in(REASONS) == switch_in(CHATML) == switch_in("{% broken") == ""


def test_thinking_that_the_prompt_begins_is_told() -> None:
    made = render_prompt(byte_tokenizer(REASONS), Prompt("", turns("the"), auto()))
    assert made.rendered.thinking == Thinking(begun=True)
    said = (Turn("user", "the"), Turn("assistant", "hm", (7, 8)))
    again = render_prompt(byte_tokenizer(REASONS), Prompt("", said, auto(), continue_reply=True))
    assert again.rendered.thinking == Thinking(begun=True)
    plain = render_prompt(byte_tokenizer(), Prompt("", turns("<think>"), auto()))
    assert plain.rendered.thinking == Thinking()


@pytest.mark.parametrize("form", ["auto", "transcript", "raw", "chatml"])
@pytest.mark.parametrize("text", ["hello", " hello", ""])
def test_an_unfinished_reply_stands_open_at_the_end(form: str, text: str) -> None:
    tokenizer = byte_tokenizer()
    chosen = auto() if form == "auto" else shipped(form)
    asked = Turn("user", "the")
    start = render_prompt(tokenizer, Prompt("", (asked,), chosen)).ids
    exact = Turn("assistant", text, (5, 6, 7))
    made = render_prompt(tokenizer, Prompt("", (asked, exact), chosen, continue_reply=True))
    assert made.ids == (*start, 5, 6, 7)
    assert made.reply_ids == (5, 6, 7)
    written = Turn("assistant", text)
    made = render_prompt(tokenizer, Prompt("", (asked, written), chosen, continue_reply=True))
    space = " " if form == "transcript" and text == "hello" else ""
    assert made.ids == (*start, *tokenizer.encode_text(space + text))
    assert made.ids[len(start) :] == made.reply_ids


def test_only_a_reply_can_be_continued() -> None:
    with pytest.raises(EngineError, match="no reply to continue"):
        render_prompt(byte_tokenizer(), Prompt("", turns("the"), auto(), continue_reply=True))


def test_a_system_text_that_is_refused_goes_into_the_first_message() -> None:
    tokenizer = byte_tokenizer(REFUSES_SYSTEM)
    made = render_prompt(tokenizer, Prompt("Be kind.", turns("hello"), auto()))
    assert "<|im_start|>user\nBe kind.\n\nhello<|im_end|>" in made.rendered.text
    assert "before your first message" in made.rendered.note
    assert render_prompt(tokenizer, Prompt("", turns("hello"), auto())).rendered.note == ""


def test_an_assistant_that_may_not_begin_is_left_out() -> None:
    tokenizer = byte_tokenizer(REFUSES_SYSTEM)
    said = (Turn("assistant", "Welcome"), Turn("user", "hello"))
    made = render_prompt(tokenizer, Prompt("Be kind.", said, auto()))
    assert "Welcome" not in made.rendered.text
    assert "Be kind.\n\nhello" in made.rendered.text
    assert "opening words" in made.rendered.note


def test_a_system_text_stays_one_where_only_the_opening_words_are_refused() -> None:
    template = (
        "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}"
        "{% if messages[0].role == 'system' %}{{ '[SYS]' + messages[0].content + '[/SYS]' }}"
        "{% endif %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{{ '[' + m.role + ']' + m.content }}{% endfor %}"
    )
    said = (Turn("assistant", "Hello!"), Turn("user", "hi"))
    made = render_prompt(byte_tokenizer(template), Prompt("Be brief.", said, auto()))
    assert made.rendered.text == "[SYS]Be brief.[/SYS][user]hi"
    assert "opening words" in made.rendered.note
    assert "before your first message" not in made.rendered.note


def test_auto_takes_the_transcript_for_models_without_a_template() -> None:
    made = render_prompt(byte_tokenizer(None), Prompt("Intro:", turns("the"), auto()))
    assert made.rendered.format == "transcript"
    assert made.rendered.text == "Intro:\n\nUser: the\n\nAI Assistant:"
    assert made.rendered.stop == ("\n\nUser:", "\nUser:")


def test_a_template_that_fails_gives_way_to_the_transcript_and_says_so() -> None:
    made = render_prompt(byte_tokenizer("{% for %}"), Prompt("", turns("the"), auto()))
    assert made.rendered.text == "User: the\n\nAI Assistant:"
    assert "chat template failed: line 1" in made.rendered.note
    with pytest.raises(EngineError, match="choose another format"):
        render_prompt(byte_tokenizer("{{ x.y }}"), Prompt("", turns("the"), PromptFormat("model")))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (PromptFormat("model"), "no chat template of its own"),
        (PromptFormat("auto"), "no other format"),
        (PromptFormat("mine", "{{ raise_exception('I only take poems') }}"), "I only take poems"),
        (PromptFormat("mine", "{% set stop = 'x' %}"), "stop must be a list"),
        (PromptFormat("mine", "a\n{% if %}"), "format mine failed: line 2"),
    ],
)
def test_formats_that_cannot_be_used_are_named(form: PromptFormat, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        render_prompt(byte_tokenizer(None), Prompt("", turns("the"), form))
    assert "\n" not in str(caught.value)


def test_bos_stands_before_formats_that_do_not_write_it() -> None:
    tokenizer = llama_tokenizer()
    for form in (shipped("transcript"), shipped("raw")):
        made = render_prompt(tokenizer, Prompt("", turns("<s> the"), form))
        assert controls(tokenizer, made) == ["<s>"]
        assert made.ids[0] == tokenizer.token_id(tokenizer.special_tokens["bos_token"])
    own = render_prompt(tokenizer, Prompt("", turns("the"), auto()))
    assert controls(tokenizer, own) == ["<s>"]


def test_raw_joins_the_texts_and_nothing_else() -> None:
    made = render_prompt(
        byte_tokenizer(), Prompt("a ", turns("the", " hello", "!"), shipped("raw"))
    )
    assert made.rendered.text == "a the hello!"
    assert render_prompt(byte_tokenizer(), Prompt("", (), shipped("raw"))).ids == ()


def test_chatml_stops_at_its_own_end() -> None:
    tokenizer = byte_tokenizer(None)
    made = render_prompt(tokenizer, Prompt("s", turns("the"), shipped("chatml")))
    assert made.rendered.stop == ("<|im_end|>",)
    assert tokenizer.control_id(made.rendered.stop[0]) is not None


def test_text_that_holds_the_stand_ins_is_safe_too() -> None:
    nasty = "\ufdd0\ufdd1<|im_end|>\ufdd2"
    made = render_prompt(
        byte_tokenizer(),
        Prompt("", (*turns(nasty), Turn("assistant", "\ufdd3", (7,)), *turns("x")), auto()),
    )
    assert nasty in made.rendered.text
    assert controls(byte_tokenizer(), made).count("<|im_end|>") == 3


def test_control_tokens_that_are_found_after_normalizing_are_safe_too() -> None:
    backend = byte_level()
    backend.normalizer = normalizers.Lowercase()
    backend.add_special_tokens([AddedToken("<|STOP|>", normalized=True)])
    tokenizer = FolderTokenizer(backend, chat_template=CHATML)
    stop = tokenizer.control_id("<|STOP|>")
    assert stop in tokenizer.encode_rendered("<|Stop|>")  # the fault to be avoided
    made = render_prompt(tokenizer, Prompt("", turns("a <|Stop|> b <|stop|>"), auto()))
    assert stop not in made.ids
    assert controls(tokenizer, made) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_long_conversations_keep_the_ids_of_every_reply() -> None:
    many = tuple(
        Turn(ROLES[n % 2], "hello the" * 20, (5,) * 60 if n % 2 else None) for n in range(400)
    )
    made = render_prompt(byte_tokenizer(), Prompt("hi", (*many, *turns("the <|im_end|>")), auto()))
    assert made.ids.count(5) == 200 * 60


@pytest.mark.model
def test_the_default_model_reads_what_transformers_would_give_it(model_folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(model_folder)
    tokenizer = FolderTokenizer.from_folder(model_folder)
    texts = (
        "Name three colours.",
        "Red, green — and *blue*.\n\n> Why?",
        "def f(x):\n    return x < 3",
    )
    for system in ("", "Be brief. 你好 👩‍🚀"):
        prompt = Prompt(system, turns(*texts), auto())
        assert list(render_prompt(tokenizer, prompt).ids) == transformers_ids(
            theirs, as_messages(prompt)
        )
    everything = tuple(turns(*(token.content for token in tokenizer.controls)))
    made = render_prompt(tokenizer, Prompt("<|im_start|>", everything, auto()))
    assert set(controls(tokenizer, made)) == {"<|im_start|>", "<|im_end|>"}
    assert controls(tokenizer, made).count("<|im_end|>") == len(everything) + 1


CLOCK = (
    "{{ strftime_now('%Y-%m-%d %H:%M:%S') + ' ' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
)


def test_a_format_that_writes_the_time_writes_that_of_the_conversation() -> None:
    began = datetime(2001, 2, 3, 4, 5, 6).timestamp()
    tokenizer = byte_tokenizer(CLOCK)
    prompt = Prompt("", turns("the"), auto(), moment=began)
    first = render_prompt(tokenizer, prompt)
    assert first.rendered.text.startswith("2001-02-03 04:05:06 ")
    reply = Turn("assistant", "hello", tuple(tokenizer.encode_inside("hello")))
    going_on = replace(prompt, turns=(*prompt.turns, reply), continue_reply=True)
    assert render_prompt(tokenizer, going_on).ids[: len(first.ids)] == first.ids
    now = render_prompt(tokenizer, replace(prompt, moment=None)).rendered.text
    assert now[:4] == f"{datetime.now():%Y}"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        ("{% for m in messages %}{{ m.content + '\n' }}{% endfor %}", None),
        ("{% for m in messages %}{{ '<|im_start|>' + m.content }}{% endfor %}", None),
        ("{% for m in messages %}{{ m.content + ' so ' + '<|im_end|>' }}{% endfor %}", None),
        ("{{ raise_exception('no') }}", None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_writes_behind_one(
    template: str | None, end: str | None
) -> None:
    tokenizer = byte_tokenizer(template)
    assert turn_end(tokenizer) == (None if end is None else tokenizer.control_id(end))
