"""The sandbox of prompt formats: transformers' text for good ones, clear words for bad ones."""

from __future__ import annotations

import pytest

from chatapp.engine.prompt import template as chat_template
from chatapp.engine.prompt.template import ChatTemplate, FormatFailed, FormatRefused, RenderedText

MESSAGES = [
    {"role": "system", "content": "Be <kind> & brief."},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "more"},
]

REAL_WORLD = [
    # Llama 3: offsets, trim, a block that is set
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|h|>' + message['role'] + '<|e|>\n\n' + message['content'] | trim %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|h|>assistant<|e|>\n\n' }}{% endif %}",
    # Qwen: whitespace control, namespaces, slices, tests
    "{%- if tools %}{{ tools }}{%- endif %}\n{%- set ns = namespace(last=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n    {%- if message.role == 'user' %}\n"
    "        {%- set ns.last = loop.index0 %}\n        {%- break %}\n    {%- endif %}\n"
    "{%- endfor %}\n{{- ns.last ~ ':' ~ messages[0].role }}\n"
    "{%- for message in messages %}{%- if message.content is string %}{{ message.content[:3] }}"
    "{%- endif %}{%- endfor %}",
    # macros, generation marks, JSON, dictionaries, calls with blocks
    "{% macro say(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}"
    "{% for m in messages %}{% generation %}{{ say(m) }}{% endgeneration %}{% endfor %}"
    "{{ messages[0] | tojson }}{{ dict(a=1).a }}{% set d = dict.fromkeys(['x'], 2) %}{{ d.x }}"
    "{{ messages | map(attribute='role') | join(',') }}{{ 'x' * 3 ~ (1 + 2) }}"
    "{% for m in messages recursive %}{{ loop.index }}{% endfor %}",
    "{{ documents is none }}{{ nothing is defined }}"
    "{{ '%s-%d' | format('a', 3) }}{{ 'a' | center(5) }}"
    "{{ 'a\nb' | indent(2) }}{{ '%05.1f' % 2.5 }}{{ 2 ** 10 }}{{ 'a'.ljust(3) }}|",
]


@pytest.mark.parametrize("source", REAL_WORLD)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_text_is_that_of_transformers(source: str, add_generation_prompt: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    theirs, _ = render_jinja_template(
        conversations=[MESSAGES],
        chat_template=source,
        add_generation_prompt=add_generation_prompt,
        bos_token="<s>",
    )
    ours = ChatTemplate(source).render(
        MESSAGES, {"bos_token": "<s>"}, add_generation_prompt=add_generation_prompt
    )
    assert ours.text == theirs[0]


def render(source: str) -> RenderedText:
    return ChatTemplate(source).render(MESSAGES, {}, add_generation_prompt=True)


def test_stop_sequences_are_read_off_the_template() -> None:
    assert render("{% set stop = ['a', 'b'] %}x") == RenderedText("x", ("a", "b"))
    assert render("x").stop == ()


@pytest.mark.parametrize("stop", ["'a'", "[1]", "['']", "{'a': 1}"])
def test_a_stop_that_is_no_list_of_texts_is_refused(stop: str) -> None:
    with pytest.raises(FormatFailed, match="stop must be"):
        render(f"{{% set stop = {stop} %}}")


def test_a_template_refuses_in_its_own_words() -> None:
    with pytest.raises(FormatRefused, match=r"^Only poems please$"):
        render("{{ raise_exception('Only poems\nplease') }}")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "runs for more than",
        ),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(99) }}",
            "runs for more than",
        ),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            "{% endfor %}{% endfor %}",
            "writes more than|runs for more than",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep"),
        ("{{ 'a' * 10 ** 10 }}", "a value of more than"),
        ("{{ [0] * 10 ** 10 }}", "a value of more than"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "too large a power"),
        (
            "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
            "{% endfor %}",
            "a value of more than",
        ),
        (
            "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
            "{% endfor %}",
            "a value of more than",
        ),
        ("{{ '%9999999999d' % 1 }}", "pads text too widely"),
        ("{{ '%*d' % (9999999999, 1) }}", "pads text too widely"),
        ("{{ '%9999999999d' | format(1) }}", "pads text too widely"),
        ("{{ 'x' | center(9999999999) }}", "pads text too widely"),
        ("{{ 'x'.ljust(9999999999) }}", "a value of more than"),
        ("{{ ('a' * 99999).replace('a', 'a' * 99999) }}", "a value of more than"),
        ("{{ ('a' * 99999).join('a' * 99999) }}", "a value of more than"),
    ],
)
def test_bombs_end_in_clear_words(monkeypatch: pytest.MonkeyPatch, source: str, words: str) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.3)
    with pytest.raises(FormatFailed, match=words) as caught:
        render(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ namespace.__init__ }}{{ namespace.__init__.__globals__.os }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ ''|attr('__class__')|attr('__mro__')|list }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{% set x = '{0.__class__.__mro__}'.format %}{{ x('') }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}{{ os }}",
    ],
)
def test_nothing_gets_out_of_the_sandbox(source: str) -> None:
    try:
        text = render(source).text
    except FormatFailed:
        return
    assert text in ("", "[]")  # what isn't allowed is undefined, which prints as nothing


def test_messages_are_as_they_were_afterwards() -> None:
    before = [dict(message) for message in MESSAGES]
    render("{% for m in messages %}{% set m = 'x' %}{% endfor %}")
    assert before == MESSAGES


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'a", "{% endfor %}", "{{ x | nofilter }}"])
def test_what_is_no_jinja_is_named_by_line(source: str) -> None:
    with pytest.raises(FormatFailed, match="line 3"):
        ChatTemplate("\n\n" + source)
