"""Others on the same model: what `chatapp bench` compares our own loops with. All tell seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chatapp.chat.sampling import SamplingParams

if TYPE_CHECKING:
    from chatapp.engine.runtimes.transformers import TransformersRuntime


def generate(
    runtime: TransformersRuntime, prompt_ids: Sequence[int], count: int, sampling: SamplingParams
) -> float:
    """How long transformers' generate() writes `count` tokens for, the first one not counted."""
    import torch

    times: list[float] = []

    class Clock:
        """What generate() takes for a streamer; the prompt is put out first, then every token."""

        def put(self, _: object) -> None:
            times.append(time.perf_counter())

        def end(self) -> None:
            pass

    tokens = torch.tensor([list(prompt_ids)], device=runtime.input_device)
    with torch.inference_mode():
        runtime.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
            streamer=Clock(),
        )
    return times[-1] - times[1]


def write_uncached(runtime: TransformersRuntime, prompt_ids: Sequence[int], count: int) -> float:
    """How long some tokens take when all of the text is read again for each."""
    import torch

    began = time.perf_counter()
    ids = list(prompt_ids)
    with torch.inference_mode():
        for _ in range(count):
            tokens = torch.tensor([ids], device=runtime.input_device)
            output = runtime.model(tokens, use_cache=False, logits_to_keep=1)
            ids.append(int(output.logits[0, -1].argmax()))
    return time.perf_counter() - began


def llama_server(
    path: str, threads: int, prompt_ids: Sequence[int], count: int, sampling: SamplingParams
) -> Callable[[int], float]:
    """llama.cpp's own server on the same file, in this process.

    What is returned takes how many candidates a token are told, and asks how long the server says
    that it wrote `count` tokens for, the first one not counted. Raises ImportError: it isn't here.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = len(prompt_ids) + count + 8
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    asked = {
        "prompt": list(prompt_ids),
        "n_predict": count,
        "ignore_eos": True,
        "cache_prompt": True,
        "seed": 0,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
    }

    def seconds(top: int) -> float:
        answer = server.handle_completions({**asked, "n_probs": top})
        return float(answer["timings"]["predicted_ms"]) / 1000

    return seconds
