"""What all tests share: a home of their own, and the real model, fetched once.

The default model (98 MB) and its prepared copy are kept between runs in a folder of the tests' own,
beside the caches of other programs; no test touches the user's conversations or settings.
"""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import platformdirs
import pytest

from chatapp.settings.paths import Paths, default_paths, make_folder

if TYPE_CHECKING:
    from chatapp.chat.facts import ModelSource
    from chatapp.engine.engine import LocalEngine
    from chatapp.engine.runtimes.llama_cpp import LlamaCppRuntime
    from chatapp.engine.runtimes.transformers import TransformersRuntime

# One thread for each model: with as many as cores, they wait in each other's way wherever two tests
# run at the same time. `home` tells the command line the same.
os.environ["OMP_NUM_THREADS"] = "1"
SHARED_HOME = Path(
    os.environ.get("CHATAPP_TEST_HOME") or platformdirs.user_cache_path("chatapp-tests")
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes; one where only files are named, or where the debugger is asked for."""
    files = all(Path(name.partition("::")[0]).is_file() for name in config.args)
    return 0 if files or config.option.usepdb else 2


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CHATAPP_HOME for every test."""
    for name in [name for name in os.environ if name.startswith("CHATAPP_")]:
        if name != "CHATAPP_TEST_HOME":
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("CHATAPP_HOME", str(folder))
    monkeypatch.setenv("CHATAPP_THREADS", "1")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("chatapp.engine.runtimes.llama_cpp._cores", lambda: 1)
        yield


@pytest.fixture
def paths(home: Path) -> Paths:
    """The folders under this test's home."""
    return default_paths()


class Call(Protocol):
    """Runs one command line."""

    def __call__(self, *arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The program in this process (its engine in another): half a second less than a fresh one."""
    from chatapp.cli import main

    def call(*arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped.encode())))
        capfd.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:  # argparse ends so after --help
            status = int(end.code or 0)
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return call


def one_line(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line of standard error, after checking that it is all there is."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("chatapp: ")
    return lines[0]


@pytest.fixture(scope="session")
def shared_paths() -> Paths:
    """The folders that hold the real model between runs."""
    return Paths(*(SHARED_HOME / name for name in ("config", "data", "cache", "state")))


@pytest.fixture(scope="session")
def model_source(shared_paths: Paths) -> ModelSource:
    """The real default model, fetched the first time."""
    from chatapp.models import obtain
    from chatapp.models.catalog import DEFAULT

    return obtain(
        DEFAULT,
        shared_paths,
        offline=False,
        on_progress=lambda _: None,
        cancelled=threading.Event().is_set,
    )


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that speaks nonsense, for what needs any model and no torch."""
    from tests.tiny_models import save_gguf

    return str(save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))


@pytest.fixture(scope="session")
def model_folder(model_source: ModelSource, shared_paths: Paths) -> Path:
    """The real model as a folder of safetensors and tokenizer.json."""
    from chatapp.engine.runtimes.prepare import prepare_gguf

    return prepare_gguf(model_source, shared_paths.prepared, lambda _: None)


@pytest.fixture(scope="session")
def real_engine(model_source: ModelSource, shared_paths: Paths) -> LocalEngine:
    """An engine with the real model on llama.cpp, as people have it. Tests share it."""
    from chatapp.chat.facts import LoadOptions
    from chatapp.engine.engine import LocalEngine

    engine = LocalEngine(shared_paths.prepared)
    engine.load(model_source, LoadOptions(), lambda _: None)
    return engine


@pytest.fixture(scope="session")
def loaded_model(real_engine: LocalEngine) -> LlamaCppRuntime:
    """The model of that engine."""
    runtime: Any = real_engine.runtime
    return runtime


@pytest.fixture(scope="session")
def reference_engine(model_source: ModelSource, shared_paths: Paths) -> LocalEngine:
    """An engine with the real model on transformers, in float32. Tests share it."""
    from chatapp.chat.facts import LoadOptions
    from chatapp.engine.engine import LocalEngine

    engine = LocalEngine(shared_paths.prepared)
    options = LoadOptions(runtime="transformers", device="cpu")
    engine.load(model_source, options, lambda _: None)
    return engine


@pytest.fixture(scope="session")
def reference_model(reference_engine: LocalEngine) -> TransformersRuntime:
    """The model of that engine."""
    runtime: Any = reference_engine.runtime
    return runtime


@pytest.fixture(scope="session")
def reference(reference_model: TransformersRuntime) -> Any:
    """transformers' own object: its forward and its generate() are what ours is compared with."""
    return reference_model.model


@pytest.fixture
def home_with_model(
    home: Path, paths: Paths, shared_paths: Paths, model_source: ModelSource
) -> Path:
    """This test's home, with the shared model in it by way of links."""
    for mine, shared in (
        (paths.models, shared_paths.models),
        (paths.prepared, make_folder(shared_paths.prepared)),
    ):
        mine.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine.symlink_to(shared)
    return home
