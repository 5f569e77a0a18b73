"""Settings: precedence, types, and one clear line for whatever can't be used."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.sampling import PARAMETERS, SamplingParams
from chatapp.chat.template import NO_TEMPLATE, Template
from chatapp.settings.config import ConfigError, Settings, load_settings, save_setting
from chatapp.settings.paths import Paths

NOTHING: Mapping[str, str] = {}


def write(paths: Paths, content: str | bytes) -> Path:
    paths.config.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    paths.config_file.write_bytes(data)
    return paths.config_file


def test_without_a_file_all_is_default(paths: Paths) -> None:
    settings = load_settings(paths, NOTHING, {})
    assert settings == Settings()
    assert settings.sampling == SamplingParams()
    assert settings.template == "assistant"


def test_flag_over_environment_over_file_over_default(paths: Paths) -> None:
    write(paths, 'model = "file"\ntheme = "file"\nscale = "rank"\n')
    environ = {"CHATAPP_MODEL": "environment", "CHATAPP_THEME": "environment"}
    settings = load_settings(paths, environ, {"model": "flag", "format": None})
    assert settings.model == "flag"
    assert settings.theme == "environment"
    assert settings.scale == "rank"
    assert settings.format == ""


def test_a_template_stands_between_the_file_and_what_is_given(paths: Paths) -> None:
    write(paths, "[sampling]\ntemperature = 0.1\ntop-k = 11\nmin_p = 0.2\n")
    strict = Template("strict", sampling={"temperature": 0.0, "top_p": 0.5})
    environ = {"CHATAPP_TOP_P": "0.6"}
    sampling = load_settings(paths, environ, {}).sampling_for(strict)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.0, 11, 0.6)
    sampling = load_settings(paths, environ, {"temperature": 1.5}).sampling_for(strict)
    assert (sampling.temperature, sampling.min_p) == (1.5, 0.2)
    assert load_settings(paths, {}, {}).sampling_for(NO_TEMPLATE).temperature == 0.1


def test_every_setting_can_come_from_the_environment(paths: Paths) -> None:
    environ = {
        "CHATAPP_MODEL": "m",
        "CHATAPP_DEVICE": "cuda:1",
        "CHATAPP_DTYPE": "bfloat16",
        "CHATAPP_THREADS": "2",
        "CHATAPP_CONTEXT_LENGTH": "512",
        "CHATAPP_OFFLINE": "yes",
        "CHATAPP_MAX_TOKENS": "64",
        "CHATAPP_STOP": "END",
        "CHATAPP_SEED": "7",
        "CHATAPP_TOP_LOGPROBS": "5",
        "CHATAPP_SCORE_PROMPT_TOKENS": "0",
        "CHATAPP_REPETITION_PENALTY": "1.1",
        "CHATAPP_TOP_K": "",
        "CHATAPP_HOME": "/elsewhere",
    }
    settings = load_settings(paths, environ, {})
    assert settings.load_options.device == "cuda:1"
    assert settings.load_options.threads == 2
    assert settings.load_options.context_length == 512
    assert settings.load_options.dtype == "bfloat16"
    assert settings.offline
    assert (settings.max_tokens, settings.stop, settings.seed) == (64, ("END",), 7)
    assert settings.score_prompt_tokens == 0
    assert settings.sampling_given == {"repetition_penalty": 1.1}


def test_the_hubs_own_variable_for_offline_counts(paths: Paths) -> None:
    assert load_settings(paths, {"HF_HUB_OFFLINE": "1"}, {}).offline
    assert not load_settings(paths, {"HF_HUB_OFFLINE": "0"}, {}).offline
    both = {"HF_HUB_OFFLINE": "1", "CHATAPP_OFFLINE": "0"}
    assert not load_settings(paths, both, {}).offline


def test_flags_that_are_no_settings_are_passed_over(paths: Paths) -> None:
    flags: dict[str, object] = {"prompt": "hi", "json": True, "seed": 3, "stop": ["a", "b"]}
    settings = load_settings(paths, NOTHING, flags)
    assert (settings.seed, settings.stop) == (3, ("a", "b"))


def test_keys_are_read(paths: Paths) -> None:
    write(paths, '[keys]\nstop = "ctrl+x,f9"\n')
    assert load_settings(paths, NOTHING, {}).keys == {"stop": "ctrl+x,f9"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model = 1 2\n", "is not valid TOML: .*line 1"),
        (b"model = '\xff'", "is not UTF-8"),
        ("modle = 'x'", r"no setting is called 'modle'; did you mean model"),
        ("qqq = 1", "there are model, "),
        ("temperature = 1", r"'temperature'; it belongs under \[sampling\]"),
        ("model = 1", "model must be a text, not 1"),
        ("device = 'gpu'", "device must be one of auto, cpu"),
        ("device = 'cuda:x'", "device must be one of"),
        ("dtype = 'int8'", "dtype must be one of auto, float32"),
        ("threads = -1", "threads must be a whole number of at least 0, not -1"),
        ("threads = true", "threads must be a whole number"),
        ("threads = 1.5", "threads must be a whole number"),
        ("offline = 1", "offline must be true or false, not 1"),
        ("stop = ['']", "stop must be a list of texts"),
        ("seed = -1", "seed must be a whole number"),
        ("scale = 'loud'", "scale must be one of probability"),
        ("sampling = 1", r"sampling must be a table, begun by a line \[sampling\]"),
        ("[sampling]\ntemperature = 'hot'", "temperature must be a number between 0 and 5"),
        ("[sampling]\ntop_k = -1", "top_k must be a whole number of at least 0, not -1"),
        ("[sampling]\ntop_k = 1.5", "top_k must be a whole number"),
        ("[sampling]\ntop_p = nan", "top_p must be a number between 0 and 1"),
        ("[sampling]\ntemprature = 1", "did you mean temperature"),
        ("[keys]\nstop = 1", r"\[keys\] stop must be a text"),
    ],
)
def test_a_bad_file_is_answered_in_one_line(paths: Paths, content: str | bytes, words: str) -> None:
    file = write(paths, content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_settings(paths, NOTHING, {})
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(paths: Paths) -> None:
    paths.config_file.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot read .*config\.toml: Is a directory"):
        load_settings(paths, NOTHING, {})


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        ({"CHATAPP_TEMPERATURE": "hot"}, {}, "CHATAPP_TEMPERATURE: temperature must be a number"),
        ({"CHATAPP_THREADS": "two"}, {}, "CHATAPP_THREADS must be a whole number"),
        ({"CHATAPP_OFFLINE": "maybe"}, {}, "CHATAPP_OFFLINE must be true or false, not 'maybe'"),
        ({}, {"top_k": -1}, "--top-k: top_k must be a whole number of at least 0"),
        ({}, {"device": "tpu"}, "--device must be one of"),
        ({}, {"max_tokens": -5}, "--max-tokens must be a whole number"),
    ],
)
def test_bad_values_name_where_they_come_from(
    paths: Paths, environ: dict[str, str], flags: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_settings(paths, environ, flags)


@given(
    name=st.sampled_from([*PARAMETERS, *(f.name for f in fields(Settings))]),
    text=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_value_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    nowhere = Paths(*[Path("/nonexistent/chatapp")] * 4)
    try:
        load_settings(nowhere, {"CHATAPP_" + name.upper(): text}, {})
    except ConfigError as error:
        assert "\n" not in str(error)


def test_saving_changes_one_line_and_keeps_the_rest(paths: Paths) -> None:
    write(paths, '# mine\nmodel = "m"  # the small one\n\n[sampling]\n# warm\ntemperature = 0.9\n')
    save_setting(paths, "theme", "nord")
    save_setting(paths, "sampling.temperature", 0.5)
    save_setting(paths, "top-k", 40)
    save_setting(paths, "keys.stop", "ctrl+x")
    source = paths.config_file.read_text()
    assert '# mine\nmodel = "m"  # the small one' in source
    assert "# warm\ntemperature = 0.5" in source
    settings = load_settings(paths, NOTHING, {})
    assert (settings.model, settings.theme) == ("m", "nord")
    assert (settings.sampling.temperature, settings.sampling.top_k) == (0.5, 40)
    assert settings.keys == {"stop": "ctrl+x"}
    save_setting(paths, "theme", None)
    save_setting(paths, "keys.none", None)
    assert load_settings(paths, NOTHING, {}).theme == ""


def test_saving_makes_the_file_for_its_owner_only(paths: Paths) -> None:
    save_setting(paths, "stop", ("a", "b"))
    assert load_settings(paths, NOTHING, {}).stop == ("a", "b")
    assert stat.S_IMODE(paths.config_file.stat().st_mode) == 0o600
    assert [file.name for file in paths.config.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("thme", "x", "did you mean theme"),
        ("sampling.heat", 1, "no setting is called 'sampling.heat'"),
        ("temperature", 9, "between 0 and 5"),
        ("threads", -1, "threads must be a whole number"),
    ],
)
def test_what_cannot_be_saved_changes_nothing(
    paths: Paths, key: str, value: object, words: str
) -> None:
    file = write(paths, 'theme = "nord"\n')
    with pytest.raises(ConfigError, match=words):
        save_setting(paths, key, value)
    assert file.read_text() == 'theme = "nord"\n'


def test_a_broken_file_is_not_written_over(paths: Paths) -> None:
    file = write(paths, "theme = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        save_setting(paths, "theme", "nord")
    assert file.read_text() == "theme = "


def test_a_file_that_cannot_be_written_is_named(paths: Paths) -> None:
    paths.config.parent.mkdir(parents=True)
    paths.config.write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"cannot read .*Not a directory"):
        save_setting(paths, "theme", "nord")
