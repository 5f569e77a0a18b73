"""The stages on the real model's logits, against transformers and the papers in NumPy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chatapp.chat.sampling import ORDERS, SamplingParams
from chatapp.engine.sampler import filters
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.chain import run_chain
from tests.engine.numpy_oracle import Filters, softmax
from tests.engine.sampler_cases import context, state, survivors

pytestmark = pytest.mark.model

TEXT = (
    "The lighthouse keeper's daughter said: 12 × 12 is 144, naturellement. Once upon a time, there"
)


@pytest.fixture(scope="module")
def rows(model_folder: Path) -> torch.Tensor:
    """The logits after every token of a text, (n, V) float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(TEXT, return_tensors="pt")).logits[0].float()


def test_each_filter_leaves_what_transformers_leaves(rows: torch.Tensor) -> None:
    from transformers import (
        MinPLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )

    ids = torch.zeros((1, 1), dtype=torch.int64)
    cases: list[tuple[str, float, Any]] = [
        ("top_k", 50, TopKLogitsWarper(50)),
        ("top_p", 0.95, TopPLogitsWarper(0.95)),
        ("top_p", 0.5, TopPLogitsWarper(0.5)),
        ("min_p", 0.05, MinPLogitsWarper(0.05)),
        ("typical", 0.9, TypicalLogitsWarper(0.9)),
    ]
    for row in rows[::3]:
        for name, setting, processor in cases:
            kept = processor(ids, row[None].clone())[0] > -math.inf
            theirs = row[kept].sort().values
            cut = getattr(filters, name)(Alive(row.numpy()), setting).alive
            ours = row[sorted(survivors(cut))].sort().values
            # Compared by logit, since which of two equals stays is not promised there; and a
            # cumulative sum of the vocabulary in float32 may be off by a token at the edge.
            assert abs(len(ours) - len(theirs)) <= 1, (name, setting)
            if len(ours) == len(theirs):
                assert torch.equal(ours, theirs), (name, setting)


@pytest.mark.parametrize("order", ORDERS)
def test_whole_chains_are_the_oracles(rows: torch.Tensor, order: str) -> None:
    values: dict[str, Any] = {
        "temperature": 0.8,
        "top_k": 200,
        "typical_p": 0.97,
        "top_n_sigma": 8.0,
        "xtc_probability": 0.5,
        "mirostat_tau": 6.0,
        "dynatemp_range": 0.3,
    }
    params = SamplingParams(**values, order=ORDERS[order])
    compared = 0
    for seed, row in enumerate(rows[::2]):
        oracle = Filters(coins=[state(seed).uniform()], mu=12.0)
        expected = oracle.chain(row.double().numpy(), params)[-1][1]
        if oracle.margin < 1e-6:
            continue
        compared += 1
        outcome = run_chain(row.numpy(), params, context(), state(seed))
        ours = outcome.final.probs(np.arange(row.numel()))
        np.testing.assert_allclose(ours, softmax(expected), atol=1e-5)
    assert compared >= len(rows) // 4
