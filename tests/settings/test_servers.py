"""Servers of the settings file, and addresses as references to models."""

from __future__ import annotations

import pytest

from chatapp.chat.errors import ModelError
from chatapp.chat.facts import ModelSource
from chatapp.settings.config import ConfigError, load_settings, save_setting
from chatapp.settings.paths import Paths
from chatapp.settings.servers import server_source
from tests.settings.test_config import write

GOOD = """
[servers.big]
url = "https://gpu.lan:8000/v1/#Qwen/Qwen3-32B"
key = "BIG_KEY"
[servers.here]
url = "http://localhost:11434#llama3:8b"
"""


def test_a_name_means_its_server_and_an_address_takes_its_key(paths: Paths) -> None:
    write(paths, GOOD)
    servers = load_settings(paths, {}, {}).servers
    big = ModelSource("Qwen/Qwen3-32B", "https://gpu.lan:8000/v1", "server", key_variable="BIG_KEY")
    assert server_source("big", servers) == big
    here = ModelSource("llama3:8b", "http://localhost:11434/v1", "server")
    assert server_source("here", servers) == here
    other = server_source("https://GPU.lan:8000/v1#other", servers)
    assert other == ModelSource("other", big.path, "server", key_variable="BIG_KEY")
    assert server_source("https://gpu.lan/v1", servers) == ModelSource(
        "", "https://gpu.lan/v1", "server"
    )
    for ref in ("smollm2-135m", "user/repo", "./big", "~/m.gguf"):
        assert server_source(ref, servers) is None


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "http://a b/v1",
        "http://h:port/v1",
        "http://h/v1?key=1",
        "http://h/\x1b",
        "http://u@h",
    ],
)
def test_addresses_that_cannot_be_used(address: str) -> None:
    with pytest.raises(ModelError, match="address"):
        server_source(address, {})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('url = "x"', "must begin with http"),
        ('url = "http://u:pw@h"', "no password"),
        ('key = "K"', "must have a url"),
        ('url = "http://h"\nmodel = "m"', "and no model"),
        ('url = "http://h"\nkey = "sk-proj-abc123"', "must be the name"),
    ],
)
def test_tables_that_cannot_be_used(paths: Paths, table: str, words: str) -> None:
    write(paths, f"[servers.big]\n{table}\n")
    with pytest.raises(ConfigError, match=rf"\[servers\.big\] .*{words}") as refused:
        load_settings(paths, {}, {})
    assert "abc123" not in str(refused.value)
    assert "pw" not in str(refused.value).replace("no password", "")


def test_saving_a_setting_leaves_them(paths: Paths) -> None:
    write(paths, GOOD)
    save_setting(paths, "theme", "nord")
    assert set(load_settings(paths, {}, {}).servers) == {"big", "here"}
