"""What each layer contributes: the logit lens, and what every part adds to one logit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from chatapp.chat.errors import EngineError
from chatapp.chat.xray import AttributionPart, LensLayer, ScoredToken
from chatapp.engine.runtimes.tokenizer import ModelTokenizer
from chatapp.engine.xray.weights import Weights

_DUST = 1e-6
"""What is smaller is rounding, and no part of its own."""


@torch.inference_mode()
def lens(
    weights: Weights, tokenizer: ModelTokenizer, token_id: int, before: Any, count: int = 5
) -> list[LensLayer]:
    """The model's prediction behind an id, after the embedding and after each layer.

    `before` is the cache of what stands before it.

    A state goes through the final norm once and through the head (nostalgebraist 2020); the last
    row is the model's own output. Raises EngineError.
    """
    insides = weights.read(token_id, before)
    final = torch.log_softmax(insides.logits.double(), dim=-1)
    first = int(final.argmax())
    found: list[LensLayer] = []
    for layer, state in enumerate(insides.states):
        is_last = layer == len(insides.states) - 1
        logits = insides.logits if is_last else weights.logits_of(state)[0].float()
        logprobs = torch.log_softmax(logits.double(), dim=-1)
        best = torch.argsort(logprobs, descending=True, stable=True)[:count].tolist()
        known = [one for one in best if one < tokenizer.vocab_size]
        top = [
            ScoredToken(piece, float(logprobs[piece.id].exp())) for piece in tokenizer.pieces(known)
        ]
        divergence = float((final.exp() * (final - logprobs)).sum()) / math.log(2)
        rank = 1 + int((logits > logits[first]).sum())
        found.append(LensLayer(layer, tuple(top), max(divergence, 0.0), rank))
    return found


@torch.inference_mode()
def attribution(
    weights: Weights, token_id: int, before: Any, target: int | None, *, by_head: bool = False
) -> tuple[int, list[AttributionPart], float]:
    """What embedding, attention and MLP of each layer add to the logit of one token.

    The final norm is linear once its scale is known: it is taken as it is at the last id (Elhage et
    al. 2021, "A Mathematical Framework for Transformer Circuits"). Biases and a cap of the logits
    are parts of their own, so that all of them together are the logit.

    Args:
        weights: the model.
        token_id: the last id that it reads.
        before: the cache of what stands before that.
        target: the token behind it whose logit is looked at; None is the model's own choice.
        by_head: whether attention is told head by head.

    Returns:
        The target, the parts, and the model's own logit.

    Raises:
        EngineError: the model can't be taken apart.
    """
    insides = weights.read(token_id, before, split=True)
    last = insides.states[-1]
    target = int(insides.logits.argmax()) if target is None else target
    scale, bias = _frozen(weights.norm, last)
    row = weights.output[target].float()
    factor = 1.0
    for name, power in (("logit_scale", 1), ("logits_scaling", -1)):
        if (value := getattr(weights.config, name, None)) is not None:
            factor *= float(value) ** power

    def worth(vector: Tensor) -> float:
        centred = vector - vector.mean() if _centres(weights.norm) else vector
        return factor * float(((centred * scale) @ row).double())

    parts = [AttributionPart(-1, "embedding", None, worth(insides.states[0]))]
    for layer, (attention, mlp) in enumerate(insides.added):
        if by_head:
            parts += _heads(weights, insides.heads, layer, attention, worth)
        else:
            parts.append(AttributionPart(layer, "attention", None, worth(attention)))
        parts.append(AttributionPart(layer, "mlp", None, worth(mlp)))
    constant = float((bias @ row).double()) if bias is not None else 0.0
    if getattr(weights.head, "bias", None) is not None:
        constant += float(weights.head.bias[target])
    if abs(constant) > _DUST:
        parts.append(AttributionPart(-1, "bias", None, factor * constant))
    logit = float(insides.logits[target])
    if getattr(weights.config, "final_logit_softcapping", None) is not None:
        uncapped = float(weights.logits_of(last)[1][target])
        parts.append(AttributionPart(-1, "softcap", None, logit - uncapped))
    return target, parts, logit


def _heads(
    weights: Weights,
    heads: Sequence[Tensor],
    layer: int,
    attention: Tensor,
    worth: Callable[[Tensor], float],
) -> list[AttributionPart]:
    """Attention's part of one layer, head by head; what is no head's is one more part."""
    matrix = weights.output_matrix(layer)
    if matrix is None or layer >= len(heads):
        raise EngineError(f"{weights.name} can't be told head by head; leave --head away")
    count = weights.head_count
    inputs = heads[layer].reshape(count, -1)
    columns = matrix.float().reshape(matrix.shape[0], count, -1)
    made = torch.einsum("dhw,hw->hd", columns, inputs)
    if (norm := weights.attention_norm(layer)) is not None:
        scale, _ = _frozen(norm, made.sum(dim=0))
        made = made * scale
    found = [
        AttributionPart(layer, "attention", head, worth(vector)) for head, vector in enumerate(made)
    ]
    rest = attention - made.sum(dim=0)
    if float(rest.abs().max()) > 1e-5 * float(attention.abs().max()):
        found.append(AttributionPart(layer, "bias", None, worth(rest)))
    return found


def _centres(norm: object) -> bool:
    """Whether a norm takes the mean away first, as LayerNorm does and RMSNorm doesn't."""
    return "RMS" not in type(norm).__name__


def _frozen(norm: Any, state: Tensor) -> tuple[Tensor, Tensor | None]:
    """A norm as it acts on one state: what it multiplies with, (d,), and what it adds.

    Raises:
        EngineError: it is no norm of a known build.
    """
    result = norm(state)
    centred = state - state.mean() if _centres(norm) else state
    bias = getattr(norm, "bias", None)
    weight = getattr(norm, "weight", None)
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    spread = torch.rsqrt(centred.pow(2).mean() + epsilon)
    plain = torch.ones_like(state) if weight is None else weight.float()
    for gain in (plain, 1 + plain):  # Gemma's norms keep the gain less one
        made = centred * spread * gain + (bias if bias is not None else 0)
        if float((made - result).abs().max()) <= 1e-4 * (float(result.abs().max()) or 1.0):
            return spread * gain, bias
    raise EngineError("this model's final norm is of a build that can't be taken apart here")
