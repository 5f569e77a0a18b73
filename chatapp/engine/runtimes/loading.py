"""Which runtime loads which model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import RUNTIMES, LoadOptions, ModelSource, Report
from chatapp.engine.runtimes.base import Runtime
from chatapp.engine.runtimes.library import NoLibrary


def load(source: ModelSource, options: LoadOptions, prepared: Path, on_progress: Report) -> Runtime:
    """Load a model: a GGUF file on llama.cpp where it can be used, anything else on transformers.

    `prepared`: the folder that converted models are kept in. Raises EngineError: the files are no
    model that the runtime runs, or it does not fit.
    """
    if options.runtime not in RUNTIMES:
        raise EngineError(f"runtime must be {', '.join(RUNTIMES)}, not {options.runtime!r}")
    started = time.monotonic()
    note = ""
    loaded: Runtime | None = None
    if _is_for_llama_cpp(source, options):
        from chatapp.engine.runtimes.llama_cpp import LlamaCppRuntime

        try:
            loaded = LlamaCppRuntime(source, options, on_progress)
        except NoLibrary as error:
            if options.runtime == "llama.cpp":
                raise
            note = f"{error}; transformers runs the model instead, which is several times slower"
    if loaded is None:
        from chatapp.engine.runtimes.transformers import load_transformers

        loaded = load_transformers(source, options, prepared, on_progress)
    seconds = time.monotonic() - started
    notes = "; ".join(filter(None, (note, loaded.facts.note)))
    loaded.facts = replace(loaded.facts, load_seconds=seconds, note=notes)
    return loaded


def _is_for_llama_cpp(source: ModelSource, options: LoadOptions) -> bool:
    """Whether llama.cpp is to load it; a dtype is something that transformers alone can choose."""
    if options.runtime == "llama.cpp":
        if source.kind != "gguf":
            raise EngineError(
                f"llama.cpp runs .gguf files, and {source.name} is a folder;"
                " leave --runtime away, or take --runtime transformers"
            )
        if options.dtype != "auto":
            raise EngineError(
                "llama.cpp takes the weights as the file has them; leave --dtype away,"
                " or take --runtime transformers"
            )
        return True
    return options.runtime == "auto" and source.kind == "gguf" and options.dtype == "auto"
