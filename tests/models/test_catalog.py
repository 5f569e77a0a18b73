"""The catalog as it is shipped."""

from __future__ import annotations

import re
import subprocess
import sys

from chatapp.models import hub
from chatapp.models.catalog import DEFAULT, HubFile, HubFolder, WheelFile, catalog, find, near


def test_default() -> None:
    entry = catalog()[0]
    assert entry is find(DEFAULT)
    assert entry.size == 98_362_432
    assert entry.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert entry.license == "Apache-2.0"
    assert [type(source) for source in entry.sources] == [HubFile, WheelFile]


def test_entries_are_sound() -> None:
    entries = catalog()
    assert len({entry.id for entry in entries}) == len(entries)
    assert len({entry.local_name for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.id == entry.id.casefold()
        assert entry.name and entry.description and entry.license and entry.sources
        assert hub.is_plain_name(entry.local_name)
        for source in entry.sources:
            if isinstance(source, HubFile | HubFolder):
                assert hub.is_repo_id(source.repo)
            else:
                # Without a pinned hash a wheel's content could not be held against anything.
                assert entry.size and re.fullmatch("[0-9a-f]{64}", entry.sha256)


def test_near_names() -> None:
    assert near("smollm2-135m-instrct")[0] == DEFAULT
    assert near("qwen3")[0] == "qwen3-0.6b"
    assert near("zzz") == ()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, chatapp.models, chatapp.commands.models, chatapp.commands.progress;"
        "heavy = {'torch', 'transformers', 'textual', 'huggingface_hub', 'httpx2', 'gguf'};"
        "print(*sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
