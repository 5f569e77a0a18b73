"""The chain: one step's logits through every stage in the user's order, and the draw.

`run_chain` keeps what each stage found and left, unjudged; the record and the trace read it off
there. So there is one code path, and the explanation of a token cannot differ from how it was
drawn. The parameters are an argument of each step: nothing about them is kept between steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chatapp.chat.errors import EngineError
from chatapp.chat.sampling import PARAMETERS, SamplingParams
from chatapp.engine.sampler import edits, filters
from chatapp.engine.sampler.alive import Alive, Array, Ids
from chatapp.engine.sampler.edits import Edit
from chatapp.engine.sampler.filters import Cut
from chatapp.engine.sampler.vocabulary import NO_VOCABULARY, Vocabulary


class BadLogits(EngineError):
    """Logits that no distribution can be made of."""


class NothingLeft(EngineError):
    """The user's own bans and rules leave no token to take."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """What the stages may look at besides the logits."""

    ids: Ids
    """(n,): the prompt and the reply so far, which penalties look at."""
    prompt_length: int
    """How many of `ids` are the prompt."""
    end_ids: Ids
    """(e,): the tokens that end a reply."""
    vocabulary: Vocabulary = NO_VOCABULARY


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a chain carries from step to step; small, and enough to replay from."""

    seed: int
    draws: int
    """How many uniform numbers were drawn."""
    mu: float | None
    """Mirostat's μ in bits; None until it has seen a token."""


class ChainState:
    """What lives through a reply: the generator of its draws, and mirostat's μ.

    Python's generator: the numbers that follow a seed are the same on every machine
    and promised to stay so (documentation of `random`, "Notes on Reproducibility").
    """

    def __init__(self, seed: int) -> None:
        """Begin a reply; seeds that differ by a multiple of 2⁶⁴ are the same."""
        self._seed = seed % 2**64
        self._generator = random.Random(self._seed)
        self._draws = 0
        self._mu: float | None = None

    @classmethod
    def restore(cls, snapshot: Snapshot) -> ChainState:
        state = cls(snapshot.seed)
        for _ in range(snapshot.draws):
            state.uniform()
        state._mu = snapshot.mu
        return state

    def snapshot(self) -> Snapshot:
        return Snapshot(self._seed, self._draws, self._mu)

    def uniform(self) -> float:
        """The next number of the reply's own generator, in [0, 1)."""
        self._draws += 1
        return self._generator.random()

    def mirostat_mu(self, tau: float) -> float:
        """μ in bits: how surprising the next token may be. It starts at 2τ."""
        return 2 * tau if self._mu is None else self._mu

    def observe(self, outcome: Outcome, token_id: int) -> None:
        """Tell the state which token was taken, drawn or forced: μ −= η·(surprisal − τ).

        The surprisal is that of the final distribution. A token that the chain had cut (the user
        forced it) tells nothing about the chain and leaves μ as it is. Source: llama.cpp's
        mirostat v2.
        """
        tau = outcome.params.mirostat_tau
        if tau == 0:
            self._mu = None
            return
        prob = float(outcome.final.probs(np.array([token_id]))[0])
        if prob > 0:
            self._mu = moved_mu(self.mirostat_mu(tau), prob, outcome.params)


def moved_mu(mu: float, prob: float, params: SamplingParams) -> float:
    """Mirostat's μ after a token of that final probability, which is above 0."""
    return mu - params.mirostat_eta * (-math.log2(prob) - params.mirostat_tau)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage that ran: the living before and after it, and what it asked for."""

    name: str
    setting: float
    before: Alive
    cut: Cut

    @property
    def after(self) -> Alive:
        return self.cut.alive


@dataclass(frozen=True)
class Outcome:
    """One step through the chain."""

    params: SamplingParams
    model: Alive
    """The model's own logits, as they came."""
    edited: Alive
    """After the logit edits."""
    edits: tuple[Edit, ...]
    stages: tuple[Stage, ...]
    """Temperature and filters that were on, in the order they ran."""

    @property
    def final(self) -> Alive:
        """What the draw is made from. `ranked()` gives ids and logits, most probable first."""
        return self.stages[-1].after if self.stages else self.edited

    @cached_property
    def temperature(self) -> float:
        """What the logits were divided by: the user's, or dynamic temperature's; 0 is arg-max."""
        used = [stage.cut.temperature for stage in self.stages if stage.name == "temperature"]
        return 1.0 if not used or used[0] is None else used[0]

    @cached_property
    def tempered(self) -> Alive:
        """After edits and temperature, over the whole vocabulary: filters play no part in it."""
        for stage in self.stages:
            if stage.name == "temperature" and stage.before is self.edited:
                return stage.after
        if self.temperature == 1:
            return self.edited
        return filters.temperature(self.edited, self.temperature).alive


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token, and the number that chose it."""

    id: int
    uniform: float | None
    """None where one token was left and nothing was drawn."""


def run_chain(
    logits: Array | Alive, params: SamplingParams, context: StepContext, state: ChainState
) -> Outcome:
    """Send one step's logits through edits and stages.

    Raises BadLogits: NaN, +inf, or nothing but -inf. Raises NothingLeft: bans and end rules leave
    no token.

    Args:
        logits: (V,) float32, or the set that they make; -inf is allowed. They are not changed,
            and may not be while the outcome is in use.
        params: read once, here.
        state: may be asked for random numbers (XTC's coin).
    """
    model = logits if isinstance(logits, Alive) else Alive(logits)
    if math.isnan(model.best):
        raise BadLogits(
            "the model's logits are not numbers (NaN); load it with --dtype float32 or check its"
            " file with `chatapp models info`"
        )
    if math.isinf(model.best):
        what = "infinite" if model.best > 0 else "all -inf"
        raise BadLogits(
            f"the model's logits are {what}, so no token has a probability; load it with"
            " --dtype float32 or check its file with `chatapp models info`"
        )
    editing = _Editing(model)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is said below
        _run_edits(editing, params, context)
    edited = model
    if editing.made:
        edited = Alive(editing.logits)
        _check_edited(edited)
    stages = _run_stages(edited, params, state)
    return Outcome(params, model, edited, tuple(editing.made), tuple(stages))


def draw(outcome: Outcome, state: ChainState) -> Drawn:
    """Take a token from the final distribution with one uniform number, by inverse CDF.

    The order is fixed (most probable first, lower ids first among equals), so the same seed gives
    the same ids. Where one token is left (T = 0, a forced end) nothing is drawn. Tell the state
    afterwards which token was taken, with `state.observe`.
    """
    if outcome.final.count == 1:
        return Drawn(outcome.final.first(), None)
    uniform = state.uniform()
    return Drawn(outcome.final.pick(uniform), uniform)


class _Editing:
    """Logits on their way through the edits; the model's own are copied before the first change."""

    def __init__(self, model: Alive) -> None:
        self.model = model
        self._copy: Array | None = None
        self.made: list[Edit] = []

    @property
    def logits(self) -> Array:
        return self.model.logits if self._copy is None else self._copy

    def add(self, edit: Edit) -> None:
        if edit.ids.size == 0:
            return
        if self._copy is None:
            self._copy = self.model.logits.copy()
        edit.apply_to(self._copy)
        self.made.append(edit)


def _run_edits(editing: _Editing, params: SamplingParams, context: StepContext) -> None:
    """The edits that are on, in the order of `EDITS`, each made from the logits so far."""
    if params.logit_bias or params.banned:
        editing.add(edits.bias(editing.logits, params.logit_bias, params.banned))
    window = context.ids[-params.penalty_window :] if params.penalty_window else context.ids
    if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
        seen = edits.occurrences(window, editing.model.vocabulary)
        if params.repetition_penalty != 1:
            editing.add(edits.repetition(editing.logits, seen, params.repetition_penalty))
        if params.presence_penalty:
            editing.add(edits.presence(editing.logits, seen, params.presence_penalty))
        if params.frequency_penalty:
            editing.add(edits.frequency(editing.logits, seen, params.frequency_penalty))
    if params.dry_multiplier:
        editing.add(
            edits.dry(
                editing.logits,
                window,
                multiplier=params.dry_multiplier,
                base=params.dry_base,
                allowed_length=params.dry_allowed_length,
                breakers=context.vocabulary.dry_breakers,
            )
        )
    if params.no_repeat_ngram:
        size = params.no_repeat_ngram
        editing.add(edits.no_repeat_ngram(editing.logits, context.ids, size))
    if params.grammar:
        allowed = context.vocabulary.allowed(
            params.grammar, context.ids, context.prompt_length, context.end_ids
        )
        editing.add(edits.grammar(editing.logits, allowed))
    _run_end_rules(editing, params, context)


def _run_end_rules(editing: _Editing, params: SamplingParams, context: StepContext) -> None:
    """Minimum length, and the end forbidden or forced. A forced end overrules a minimum length."""
    ends: list[int] = context.end_ids.tolist()
    if params.end == "force":
        if not ends:
            raise NothingLeft("this model names no end token, so an end cannot be forced; stop it")
        editing.add(edits.force_end(editing.model.logits, editing.logits, ends))
        return
    if context.ids.size - context.prompt_length < params.min_tokens:
        editing.add(edits.ban(editing.logits, ends, "min_tokens", float(params.min_tokens)))
    if params.end == "forbid":
        editing.add(edits.ban(editing.logits, ends, "end", 0.0))


def _check_edited(edited: Alive) -> None:
    if edited.best == -math.inf:
        raise NothingLeft(
            "bans, end rules and the grammar leave no token to take; lift one of banned,"
            " logit_bias, no_repeat_ngram, grammar, min_tokens or end"
        )
    if not math.isfinite(edited.best):
        raise BadLogits("a logit bias or penalty drives a logit to infinity; make it smaller")


def _run_stages(edited: Alive, params: SamplingParams, state: ChainState) -> list[Stage]:
    stages: list[Stage] = []
    alive = edited
    for name in params.order:
        parameter, apply = _STAGES[name]
        setting = getattr(params, parameter)
        if setting == PARAMETERS[parameter].off or (cut := apply(alive, params, state)) is None:
            continue
        stages.append(Stage(name, float(setting), alive, cut))
        alive = cut.alive
    return stages


def _temperature(alive: Alive, params: SamplingParams, _: ChainState) -> Cut | None:
    if params.temperature == 1 and params.dynatemp_range == 0:
        return None
    return filters.temperature(
        alive, params.temperature, params.dynatemp_range, params.dynatemp_exponent
    )


def _xtc(alive: Alive, params: SamplingParams, state: ChainState) -> Cut | None:
    if params.xtc_threshold > 0.5:
        return None
    return filters.xtc(alive, params.xtc_probability, params.xtc_threshold, state.uniform)


_Apply = Callable[[Alive, SamplingParams, ChainState], Cut | None]

_STAGES: Mapping[str, tuple[str, _Apply]] = {
    "temperature": ("temperature", _temperature),
    "top_k": ("top_k", lambda a, p, _: filters.top_k(a, p.top_k)),
    "top_p": ("top_p", lambda a, p, _: filters.top_p(a, p.top_p)),
    "min_p": ("min_p", lambda a, p, _: filters.min_p(a, p.min_p)),
    "typical": ("typical_p", lambda a, p, _: filters.typical(a, p.typical_p)),
    "top_n_sigma": ("top_n_sigma", lambda a, p, _: filters.top_n_sigma(a, p.top_n_sigma)),
    "xtc": ("xtc_probability", _xtc),
    "mirostat": (
        "mirostat_tau",
        lambda a, p, state: filters.mirostat(a, state.mirostat_mu(p.mirostat_tau)),
    ),
}
"""Every stage of `SamplingParams.order`: the parameter it is known by, and what runs it (None when
it does nothing)."""
