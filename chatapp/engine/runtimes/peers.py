"""A model of transformers in other loops than ours: what `chatapp bench` compares it with."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.runtimes.transformers import TransformersRuntime


def generate_times(
    runtime: TransformersRuntime, prompt_ids: Sequence[int], count: int, sampling: SamplingParams
) -> list[float]:
    """When transformers' generate() put out the prompt, and then each new token, in seconds."""
    times: list[float] = []

    class Clock:
        """What generate() takes for a streamer."""

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
    return times


def write_uncached(runtime: TransformersRuntime, prompt_ids: Sequence[int], count: int) -> None:
    """Write some tokens by reading all of the text again for each."""
    ids = list(prompt_ids)
    with torch.inference_mode():
        for _ in range(count):
            tokens = torch.tensor([ids], device=runtime.input_device)
            output = runtime.model(tokens, use_cache=False, logits_to_keep=1)
            ids.append(int(output.logits[0, -1].argmax()))
