"""The output head: from the final hidden states to logits, without running the layers again.

What the layers made of a token is one vector (d,), and its logits follow from that vector alone. So
a prompt that has been read once can be scored at the cost of one matrix product. The head is the
model's own forward with the layers' output put in their place: whatever an architecture does behind
its layers (Gemma 2 caps the logits, Cohere multiplies them, Granite divides them) is done here too.
`find_head` checks that on a short text before anyone relies on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

_CHECK_TOKENS = 4
"""How many tokens the check reads."""
_TOLERANCE = 1e-4
"""How far the check's logits may lie apart: the same operations on the same numbers."""


@dataclass(slots=True)
class Capture:
    """What the layers gave in a pass of the model."""

    output: Any = None
    """The base model's own output object; None before the pass."""

    @property
    def states(self) -> torch.Tensor:
        """The last layer's output behind the last norm, (n, d) in the model's dtype."""
        states: torch.Tensor = self.output.last_hidden_state[0]
        return states.detach()


@dataclass(frozen=True, slots=True)
class OutputHead:
    """What stands behind the layers of a causal language model."""

    model: Any
    """The whole of it."""
    base: Any
    """The layers: the embedding, the blocks and the last norm."""
    output_type: type[Any] = field(repr=False)
    """What `base` returns, made with `last_hidden_state`."""

    @contextmanager
    def capture(self) -> Iterator[Capture]:
        """Take hold of what the layers give within; of every token, however few logits are kept."""
        taken = Capture()

        def take(_module: Any, _arguments: Any, output: Any) -> None:
            taken.output = output

        hook = self.base.register_forward_hook(take)
        try:
            yield taken
        finally:
            hook.remove()

    def logits(self, ids: Sequence[int], states: torch.Tensor) -> torch.Tensor:
        """The logits after some tokens.

        Args:
            ids: the n tokens.
            states: what the layers made of them, (n, d).

        Returns:
            (n, V), in the dtype and on the device that the model gives.
        """
        given = self.output_type(last_hidden_state=states[None])
        tokens = torch.tensor([list(ids)], device=states.device)
        with torch.inference_mode(), _in_place_of_layers(self.base, given):
            logits: torch.Tensor = self.model(tokens, use_cache=False).logits[0]
        return logits


@contextmanager
def _in_place_of_layers(base: Any, output: Any) -> Iterator[None]:
    """Within, calling the layers gives this output. Only the thread that runs the model may."""

    def give(*_: Any, **__: Any) -> Any:
        return output

    before = vars(base).get("forward")  # accelerate puts one there that moves tensors about
    base.forward = give  # hides the method of the class
    try:
        yield
    finally:
        if before is None:
            del base.forward
        else:
            base.forward = before


def find_head(model: Any, device: torch.device) -> OutputHead | None:
    """A model's output head; None where it cannot be had, or does not give the model's logits.

    Args:
        model: a transformers causal language model.
        device: where its token ids have to be.
    """
    base = model.base_model
    if base is model:
        return None
    ids = list(range(_CHECK_TOKENS))
    tokens = torch.tensor([ids], device=device)
    head = OutputHead(model, base, object)
    try:
        with torch.inference_mode(), head.capture() as taken:
            wanted = model(tokens, use_cache=False).logits[0]
        head = OutputHead(model, base, type(taken.output))
        given = head.logits(ids, taken.states)
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError, KeyError):
        return None  # an architecture of another build: its texts are read anew instead
    alike = given.shape == wanted.shape and torch.allclose(
        given.float(), wanted.float(), rtol=_TOLERANCE, atol=_TOLERANCE
    )
    return head if alike and taken.states.shape[0] == len(ids) else None
