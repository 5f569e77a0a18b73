"""The llama.cpp order of the chain against llama.cpp itself, on the same file.

llama.cpp rounds activations to eight bits, so its logits differ from those of the dequantized
weights, and two correct chains may then keep different tokens at an edge. The chain is therefore
put to llama.cpp's own logits: there it must keep the same tokens with the same probabilities.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from chatapp.chat.facts import ModelSource
from chatapp.chat.sampling import LLAMA_CPP_ORDER, SamplingParams
from chatapp.engine.sampler.chain import ChainState, StepContext, run_chain

pytestmark = pytest.mark.model

xllamacpp = pytest.importorskip("xllamacpp")

RAW = 400
"""How many of the raw logprobs are asked for: far more than any setting here keeps."""

PROMPT = (
    "<|im_start|>user\nTell me a long story about a lighthouse.<|im_end|>\n<|im_start|>assistant\n"
)

SETTINGS = {
    "defaults": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    "hot": {"temperature": 1.5, "top_k": 100, "top_p": 0.9, "min_p": 0.01},
    "typical": {"temperature": 1.0, "top_k": 60, "typical_p": 0.8, "top_p": 1.0, "min_p": 0.0},
}
"""top-nσ is not among them: its σ is that of all logits, and not all of them can be asked for."""

END = 2


@pytest.fixture(scope="module")
def server(model_source: ModelSource) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = model_source.path
    params.n_ctx = 1024
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    return xllamacpp.Server(params)


def complete(
    server: Any, settings: dict[str, Any], steps: int, *, after: bool
) -> list[dict[str, Any]]:
    """What llama.cpp tells of each step: raw logprobs, or probabilities after its chain."""
    request = {
        "prompt": PROMPT,
        "n_predict": steps,
        "n_probs": RAW,
        "post_sampling_probs": after,
        "seed": 7,
        "cache_prompt": False,
        "ignore_eos": True,
        "samplers": ["top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
        **settings,
    }
    answer = server.handle_completions(request)
    answer = answer if isinstance(answer, dict) else json.loads(answer)
    content: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"]
    return content


@pytest.mark.parametrize("steps", [30, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_tokens_survive(server: Any, name: str, steps: int) -> None:
    settings = SETTINGS[name]
    # Its ignore_eos is a bias of -inf, as a ban is here.
    sampling = SamplingParams(**settings, banned=(END,), order=LLAMA_CPP_ORDER)
    raw, final = (complete(server, settings, steps, after=after) for after in (False, True))
    # The same seed draws the same tokens, so both runs tell of the same steps.
    assert [step["id"] for step in raw] == [step["id"] for step in final]
    assert len(raw) == steps
    context = StepContext(
        ids=np.array([1]),
        prompt_length=1,
        end_ids=np.array([END]),
    )
    differences = []
    for number, (before, after) in enumerate(zip(raw, final, strict=True)):
        logits = np.full(49152, -math.inf, dtype=np.float32)
        for shown in before["top_logprobs"]:
            logits[shown["id"]] = shown["logprob"]
        kept = run_chain(logits, sampling, context, ChainState(0)).final.ranked()
        probs = kept.probs(kept.ids).tolist()
        ours = dict(zip(kept.ids.tolist(), probs, strict=True))
        theirs = {shown["id"]: shown["prob"] for shown in after["top_probs"]}
        if set(ours) != set(theirs):
            differences.append((number, set(ours) ^ set(theirs)))
            continue
        for token_id, prob in theirs.items():
            assert ours[token_id] == pytest.approx(prob, abs=2e-5)
    assert not differences
