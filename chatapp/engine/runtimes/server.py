"""llama.cpp's own server on the same file: what `chatapp bench` compares ours with."""

from __future__ import annotations

from collections.abc import Sequence

import xllamacpp

from chatapp.chat.sampling import SamplingParams


class LlamaServer:
    """llama.cpp's own server on the same file, in this process."""

    def __init__(self, path: str, context: int, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = context
        params.n_parallel = 1
        params.warmup = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self._server = xllamacpp.Server(params)

    def seconds(
        self, prompt_ids: Sequence[int], count: int, sampling: SamplingParams, top: int
    ) -> float:
        """How long the server says that it wrote `count` tokens for, the first one not counted."""
        answer = self._server.handle_completions(
            {
                "prompt": list(prompt_ids),
                "n_predict": count,
                "n_probs": top,
                "ignore_eos": True,
                "cache_prompt": True,
                "seed": 0,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
            }
        )
        return float(answer["timings"]["predicted_ms"]) / 1000
