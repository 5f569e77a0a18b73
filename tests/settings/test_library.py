"""Templates and formats: ours are good, the user's override them, broken ones stop nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE, Template, TemplateError
from chatapp.settings.library import load_formats, load_templates, save_template
from chatapp.settings.paths import Paths, assets


def write(folder: Path, name: str, content: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_ours_are_complete(paths: Paths) -> None:
    templates = load_templates(paths)
    assert templates.problems == ()
    assert len(templates.by_name) >= 9
    assert templates.named("assistant").format == "auto"
    formats = load_formats(paths)
    assert formats.problems == ()
    for name, template in templates.by_name.items():
        assert template.description
        assert "\n" not in template.system.replace("\n\n", "")
        assert "  " not in template.system  # lines joined without their indentation
        assert formats.named(template.format)
        SamplingParams().with_values(template.sampling)
        assert (assets() / "templates" / f"{name}.toml").is_file()


def test_the_templates_that_were_asked_for(paths: Paths) -> None:
    templates = load_templates(paths)
    transcript = templates.named("transcript")
    assert transcript.format == "transcript"
    assert (
        transcript.system
        == "What follows is a conversation between a user and a helpful AI assistant:"
    )
    assert templates.named("strict").sampling == {"temperature": 0.0}
    assert templates.named("brainstormer").sampling["temperature"] > 1
    for name in ("assistant", "tutor", "coder", "editor", "translator"):
        assert templates.named(name).system


def test_none_is_the_template_that_adds_nothing(paths: Paths) -> None:
    assert load_templates(paths).named("none") is NO_TEMPLATE


def test_the_users_files_override_and_add(paths: Paths) -> None:
    write(paths.templates, "mine.toml", 'name = "tutor"\nsystem = "Be strict."')
    write(paths.templates, "pirate.toml", "system = 'Arr.'\r\n[sampling]\r\ntop-k = 7\r\n")
    templates = load_templates(paths)
    assert templates.named("tutor").system == "Be strict."
    assert templates.named("pirate").system == "Arr."
    assert templates.named("pirate").sampling == {"top_k": 7}
    assert "coder" in templates.by_name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("system = ", "not valid TOML"),
        (b"system = '\xff'", "not UTF-8"),
        ("sytem = 'x'", "unknown field 'sytem'"),
        ("system = 1", "system must be a text"),
        ("[sampling]\ntemperature = 9", "between 0 and 5"),
        ("[sampling]\nheat = 1", "no setting is called 'heat'"),
        ("sampling = 1", "must be a table"),
        ("stop = ''", "stop must be a list"),
        ("name = 'none'", "cannot be called 'none'"),
        ('name = "a\\nb"', "cannot be called"),
        ("format = ''", "format must not be empty"),
        ("#" * 1_000_001, "longer than"),
    ],
)
def test_a_broken_template_is_named_and_left_out(
    paths: Paths, content: str | bytes, reason: str
) -> None:
    file = write(paths.templates, "broken.toml", content)
    write(paths.templates, "good.toml", "system = 'x'")
    templates = load_templates(paths)
    assert len(templates.problems) == 1
    assert templates.problems[0].startswith(f"{file} is left out: ")
    assert reason in templates.problems[0]
    assert "\n" not in templates.problems[0]
    assert "broken" not in templates.by_name
    assert "good" in templates.by_name


def test_what_cannot_be_opened_is_named(paths: Paths) -> None:
    (paths.templates / "folder.toml").mkdir(parents=True)
    paths.formats.mkdir(parents=True)
    os.symlink(paths.formats / "nowhere", paths.formats / "gone.jinja")
    assert "folder.toml is left out" in load_templates(paths).problems[0]
    assert "gone.jinja is left out: No such file" in load_formats(paths).problems[0]


def test_unknown_names_are_answered_with_near_ones(paths: Paths) -> None:
    with pytest.raises(TemplateError, match=r"'transcipt'; did you mean transcript\?"):
        load_templates(paths).named("transcipt")
    with pytest.raises(TemplateError, match=r"there are assistant, .*none"):
        load_templates(paths).named("zzzzzz")
    with pytest.raises(TemplateError, match=r"did you mean chatml\?"):
        load_formats(paths).named("chatm")
    with pytest.raises(TemplateError, match="there are auto, model, "):
        load_formats(paths).named("xyz")


def test_formats(paths: Paths) -> None:
    write(paths.formats, "poem.jinja", "{{ messages }}")
    write(paths.formats, "raw.jinja", "mine")
    write(paths.formats, "auto.jinja", "x")
    formats = load_formats(paths)
    assert set(formats.by_name) == {"auto", "model", "transcript", "chatml", "raw", "poem"}
    assert formats.named("auto").source == formats.named("transcript").source != ""
    assert formats.named("model").source == ""
    assert formats.named("poem").source == "{{ messages }}"
    assert formats.named("raw").source == "mine"
    assert formats.problems[0].endswith("the name auto is taken by the model's own")


def test_a_transcript_of_the_users_own_is_what_auto_falls_back_to(paths: Paths) -> None:
    write(paths.formats, "transcript.jinja", "Q/A")
    assert load_formats(paths).named("auto").source == "Q/A"


def test_a_template_is_kept_in_the_file_that_has_its_name(paths: Paths) -> None:
    file = write(paths.templates, "foo.toml", 'name = "Bar"\nsystem = "old"\n')
    kept = Template("Bar", system="new")
    assert save_template(paths, kept, SamplingParams()) == file
    assert load_templates(paths).named("Bar").system == "new"
    with pytest.raises(TemplateError, match="holds the template 'Bar'; give another name"):
        save_template(paths, Template("foo", system="other"), SamplingParams())
    assert load_templates(paths).named("Bar").system == "new"
