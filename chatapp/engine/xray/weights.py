"""A model taken apart: its layers, its norms, its head, found by what they do.

Names of modules differ from architecture to architecture, so what is found by name is held against
what the model computes: the head behind the final norm must give its logits, and what a layer's
attention and MLP add must be what the layer adds. A model for which this is not so is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chatapp.chat.errors import EngineError

_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_MLPS = ("mlp", "feed_forward", "block_sparse_moe")
_AFTER_ATTENTION = ("post_attention_layernorm", "post_self_attn_layernorm")
_AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
_OUTPUTS = ("o_proj", "c_proj", "dense", "out_proj")
TOLERANCE = 1e-3
"""How far, as a share of its size, what was put together may be from what the model computes."""


@dataclass(slots=True)
class Insides:
    """What one pass of the model left, for its last token."""

    states: list[Tensor]
    """What goes into the first layer, then what comes out of each; (d,), float32."""
    added: list[tuple[Tensor, Tensor]]
    """By layer, what attention and MLP add; empty where the model can't be split so."""
    heads: list[Tensor]
    """By layer, what goes into attention's output matrix; (heads × head width,)."""
    logits: Tensor
    """(V,)."""


class Weights:
    """A causal language model of transformers in float32."""

    def __init__(self, model: Any, name: str, cache_argument: str = "past_key_values") -> None:
        """Find the parts. Raises EngineError where there is no such part.

        Args:
            model: the model, in eval mode.
            name: what messages call it.
            cache_argument: what its forward takes the KV cache as.
        """
        self.model = model
        self.name = name
        self.cache_argument = cache_argument
        self.config = model.config.get_text_config()
        self.base: Any = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        self.layers = self._find_layers()
        norm = _child(self.base, _FINAL_NORMS)
        if norm is None:
            raise self.unknown("no final norm")
        self.norm: Any = norm
        self.head: Any = model.get_output_embeddings()
        if self.head is None:
            raise self.unknown("no output matrix")

    @property
    def input(self) -> Tensor:
        """The input embeddings, (V, d)."""
        weight: Tensor = self.model.get_input_embeddings().weight.detach()
        return weight

    @property
    def output(self) -> Tensor:
        """The output embeddings, (V, d)."""
        weight: Tensor = self.head.weight.detach()
        return weight

    @property
    def layer_count(self) -> int:
        return len(self.layers)

    @property
    def head_count(self) -> int:
        return int(getattr(self.config, "num_attention_heads", 0))

    def logits_of(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """What the model would answer if a state stood before its final norm.

        Returns:
            The logits, (V,), and the same before they are capped.
        """
        logits = self.head(self.norm(state))
        for name, power in (("logit_scale", 1), ("logits_scaling", -1)):
            if (factor := getattr(self.config, name, None)) is not None:
                logits = logits * float(factor) ** power
        cap = getattr(self.config, "final_logit_softcapping", None)
        return (logits if cap is None else torch.tanh(logits / cap) * cap), logits

    def run(self, ids: Sequence[int], before: Any, **wanted: bool) -> Any:
        """One pass over some ids; `before` is the cache of what stands before them, if anything.

        Raises EngineError.
        """
        tokens = torch.tensor([list(ids)], device=self.input.device)
        cache = {} if before is None else {self.cache_argument: before}
        try:
            return self.model(tokens, **cache, use_cache=bool(cache), logits_to_keep=1, **wanted)
        except (RuntimeError, MemoryError, ValueError, TypeError) as error:
            raise EngineError(f"the model failed: {str(error)[:200]}") from error

    @torch.inference_mode()
    def read(self, token_id: int, before: Any, *, split: bool = False) -> Insides:
        """One step over an id, and what it leaves.

        Args:
            token_id: what is read.
            before: the cache of what stands before it.
            split: whether what each layer's parts add is wanted.

        Raises:
            EngineError: it failed, or the model can't be taken apart.
        """
        states: list[Tensor] = []
        added: list[list[Tensor]] = [[] for _ in self.layers]
        heads: list[Tensor] = []
        hooks: list[Any] = [
            self.layers[0].register_forward_pre_hook(
                lambda _m, args, kwargs: states.append(_last(_first(args, kwargs))),
                with_kwargs=True,
            )
        ]
        try:
            for number, layer in enumerate(self.layers):
                hooks.append(
                    layer.register_forward_hook(lambda _m, _a, out: states.append(_last(out)))
                )
                if split:
                    for part in self._adders(layer):
                        hooks.append(part.register_forward_hook(_keep(added[number])))
                    output = _child(_child(layer, _ATTENTIONS), _OUTPUTS)
                    if output is not None:
                        hooks.append(
                            output.register_forward_pre_hook(
                                lambda _m, args: heads.append(_last(args[0]))
                            )
                        )
            result = self.run([token_id], before)
        finally:
            for hook in hooks:
                hook.remove()
        insides = Insides(states, [], heads, result.logits[0, -1].float())
        if len(states) != self.layer_count + 1:
            raise self.unknown("its layers don't run one after the other")
        if split:
            insides.added = self._checked(states, added)
        again = self.logits_of(states[-1])[0]
        if not _near(again, insides.logits):
            raise self.unknown("norm and head don't give its logits")
        return insides

    def output_matrix(self, layer: int) -> Tensor | None:
        """Attention's output matrix, (d, heads × head width); None where there is none."""
        module = _child(_child(self.layers[layer], _ATTENTIONS), _OUTPUTS)
        if module is None:
            return None
        weight: Tensor = module.weight.detach()
        return weight.T if type(module).__name__ == "Conv1D" else weight

    def attention_norm(self, layer: int) -> Any | None:
        """The norm that follows attention before it is added; None where none does."""
        found = self.layers[layer]
        return _child(found, _AFTER_ATTENTION) if _is_sandwiched(found) else None

    @contextmanager
    def eager(self) -> Iterator[None]:
        """While it lasts, attention is computed step by step and can be looked at."""
        before = self.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(before or "eager")

    def _find_layers(self) -> list[Any]:
        count = int(getattr(self.config, "num_hidden_layers", 0))
        for module in self.base.children():
            if isinstance(module, nn.ModuleList) and len(module) == count > 0:
                return list(module)
        raise self.unknown("no row of layers")

    def _adders(self, layer: Any) -> tuple[Any, Any]:
        """The two modules whose output is added to the residual stream."""
        sandwiched = _is_sandwiched(layer)
        attention = _child(layer, _AFTER_ATTENTION if sandwiched else _ATTENTIONS)
        mlp = _child(layer, _AFTER_MLP if sandwiched else _MLPS)
        if attention is None or mlp is None:
            raise self.unknown("its layers are not attention and MLP")
        return attention, mlp

    def _checked(
        self, states: Sequence[Tensor], added: Sequence[Sequence[Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = []
        for before, after, parts in zip(states, states[1:], added, strict=False):
            if len(parts) != 2 or not _near(before + parts[0] + parts[1], after):
                raise self.unknown("its layers add more than attention and MLP")
            found.append((parts[0], parts[1]))
        return found

    def unknown(self, why: str) -> EngineError:
        """The error of a model that lacks what is asked about; `why` in a few words."""
        kind = type(self.model).__name__
        return EngineError(
            f"{self.name} ({kind}) cannot be looked into here: {why}; other models of the usual"
            " build can"
        )


def _is_sandwiched(layer: Any) -> bool:
    """Whether norms follow attention and MLP, too; what they give is added then."""
    return _child(layer, _AFTER_MLP) is not None


def _keep(found: list[Tensor]) -> Any:
    return lambda _module, _arguments, out: found.append(_last(out))


def _first(args: Any, kwargs: Any) -> Any:
    return args[0] if args else kwargs["hidden_states"]


def _last(out: Any) -> Tensor:
    """The vector of the last token, of what a module takes or gives."""
    tensor: Tensor = out[0] if isinstance(out, tuple) else out
    return tensor.reshape(-1, tensor.shape[-1])[-1].float().clone()


def _near(one: Tensor, other: Tensor) -> bool:
    size = float(other.abs().max()) or 1.0
    return float((one - other).abs().max()) <= TOLERANCE * size


def _child(module: Any, names: Sequence[str]) -> Any | None:
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)
