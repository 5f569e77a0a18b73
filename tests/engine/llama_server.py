"""llama.cpp's own server, listening on this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import xllamacpp


@contextmanager
def llama_server(path: str, context: int = 512, **settings: Any) -> Iterator[str]:
    """Its address while it runs, as `-m` takes it."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.port = 0
    for name, value in settings.items():
        setattr(params, name, value)
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def own_process(path: str) -> tuple[subprocess.Popen[str], str]:
    """The same in a process that can be killed, and its address."""
    command = [sys.executable, "-m", __name__, path]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        return process, process.stdout.readline().strip()


if __name__ == "__main__":
    with llama_server(sys.argv[1]) as found:
        print(found, flush=True)
        threading.Event().wait()
