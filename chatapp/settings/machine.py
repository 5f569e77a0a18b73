"""What this machine has for a model: free memory, and how fast it is read."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

_READ_BYTES = 128 << 20
"""What is read to measure memory: more than most caches hold."""


def free_memory() -> int:
    """Bytes of memory that programs may still take."""
    import psutil

    return int(psutil.virtual_memory().available)


def memory_speed(threads: int) -> float:
    """Bytes a second that so many threads read from memory, the best of three times: some 30 ms."""
    import numpy as np

    blocks = np.array_split(np.ones(_READ_BYTES // 4, np.float32), threads)
    times: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            began = time.perf_counter()
            list(pool.map(np.dot, blocks, blocks))  # reads, and releases the interpreter's lock
            times.append(time.perf_counter() - began)
    return _READ_BYTES / min(times)
