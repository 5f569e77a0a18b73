"""The built wheel, installed where nothing of this checkout is, and run from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_carries_its_assets(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels = tmp_path / "wheels"
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT)], check=True, timeout=280
    )
    (wheel,) = wheels.glob("chatapp-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "chatapp/assets/catalog.toml" in names
    assert "chatapp/assets/templates/assistant.toml" in names
    assert "chatapp/assets/formats/chatml.jinja" in names
    assert any(name.startswith("chatapp/ui/") and name.endswith(".tcss") for name in names)
    assert not any(name.startswith("tests/") for name in names)

    place = tmp_path / "place"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True, timeout=280
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = (
        "import chatapp, sys; from chatapp.settings.library import *;"
        "from chatapp.settings.paths import *;"
        "from chatapp.models import catalog;"
        "print(chatapp.__file__); print(*load_templates(default_paths()).by_name);"
        "print(*load_formats(default_paths()).by_name); print(catalog()[0].id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    where, templates, formats, default = done.stdout.splitlines()
    assert Path(where).is_relative_to(place)
    assert {"assistant", "transcript", "tutor", "strict"} <= set(templates.split())
    assert {"auto", "model", "chatml", "transcript", "raw"} <= set(formats.split())
    assert default == "smollm2-135m-instruct"
    program = subprocess.run(
        [sys.executable, "-m", "chatapp", "--help"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "one reply to standard output" in program.stdout
