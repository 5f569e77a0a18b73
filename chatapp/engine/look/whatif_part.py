"""Neighbouring steps of a reply under other settings, all at once.

Where XTC's coin decides, the steps go on both ways from there, each a `Branch`: what came before
the coin is worked out once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.look.whatif_edits import EditedPart, ReplyIds, edit_part
from chatapp.engine.look.whatif_living import Living
from chatapp.engine.look.whatif_stages import STAGES
from chatapp.engine.look.whatif_tables import ReplyPart


@dataclass(frozen=True, slots=True)
class Step:
    """What the settings make of one token: natural logprobs, and the rest of `WhatIfToken`."""

    tempered: float
    final: float
    removed_by: str | None
    choices: int
    best_id: int


class NothingAlive(Exception):
    """No distribution can be made at a step."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class PartUnderTest:
    """The edits and stages of some steps."""

    def __init__(
        self, part: ReplyPart, first: int, params: SamplingParams, reply: ReplyIds
    ) -> None:
        """Edit the logits.

        Args:
            part: the rows.
            first: which row of the reply is the part's first.
            params: the settings.
            reply: the ids.

        Raises:
            NothingAlive: at a row that nothing can be taken from.
        """
        edited = edit_part(part, first, params, reply)
        table = part.table if edited is None else edited.table
        self._part = part
        self._params = params
        self._banned_by = None if edited is None else edited.banned_by
        self._uncut = Living(table, _taken_logits(part, edited), _FirstIds(part, edited).find)
        if self._uncut.without_any.numel():
            raise NothingAlive(int(self._uncut.without_any[0]))

    def run(self, chance: float) -> list[Branch]:
        """All stages but mirostat.

        Args:
            chance: that XTC's coin falls for dropping; 0 where XTC is off.

        Returns:
            The steps as they are without XTC, if that can be, and with it, if that can be.
        """
        # Without a temperature the tokens' tempered logprobs are those of the model.
        known = self._banned_by is None and not STAGES["temperature"].is_on(self._params)
        tempered = self._part.taken_logprobs if known else None
        branches = [Branch(self._part.taken, self._uncut.fork(), tempered)]
        for name in self._params.order:
            if name not in STAGES or not STAGES[name].is_on(self._params):
                continue
            if name == "xtc" and chance == 0:
                continue
            if name == "xtc" and chance < 1:
                dropped = branches[0].fork()
                dropped.run(name, self._params)
                branches.append(dropped)
                continue
            for branch in branches:
                branch.run(name, self._params)
        return branches

    def steps(self, branch: Branch) -> list[Step]:
        """What has become of each token; ask for `branch.living.unsure` afterwards."""
        living = branch.living
        tempered = self._tempered(branch)
        final = living.taken_logprobs(self._part.taken) if branch.cut else tempered
        final = torch.where(branch.alive, final, -torch.inf)
        removed_by = branch.removed_by
        if self._banned_by is not None:
            # What has been banned was cut by the ban, though a forced end may have freed it.
            gone = (~branch.alive).tolist()
            removed_by = [
                (banned or removed) if dead else removed
                for banned, removed, dead in zip(self._banned_by, removed_by, gone, strict=True)
            ]
        columns = (tempered, final, living.choices, living.first_ids())
        return [
            Step(tempered, final, removal, choices, best_id)
            for tempered, final, choices, best_id, removal in zip(
                *(column.tolist() for column in columns), removed_by, strict=True
            )
        ]

    def _tempered(self, branch: Branch) -> torch.Tensor:
        """ln p of the tokens taken after edits and temperature, no filter playing a part."""
        if branch.tempered is not None:
            return branch.tempered
        uncut = self._uncut.fork()
        if branch.divided:
            uncut.divide(branch.living.temperature)
        return uncut.taken_logprobs(self._part.taken)


class Branch:
    """Some steps on their way through the stages, XTC's coin fallen one way."""

    def __init__(self, taken: torch.Tensor, living: Living, tempered: torch.Tensor | None) -> None:
        """Begin before the first stage.

        Args:
            taken: (r,) int64, the tokens taken.
            living: what the edits left.
            tempered: (r,) float64, ln p of the tokens taken after edits and temperature, if known.
        """
        self.living = living
        self.tempered = tempered
        self.removed_by: list[str | None] = [None] * taken.numel()
        """The stage that cut the token taken, in each row."""
        self.alive = living.taken_alive(taken)
        """(r,) bool: whether the token taken is alive."""
        self.cut = False
        """Whether a filter has run."""
        self.divided = False
        """Whether temperature has."""
        self._taken = taken

    def fork(self) -> Branch:
        """The same steps, to go on another way."""
        other = copy.copy(self)
        other.living = self.living.fork()
        other.removed_by = list(self.removed_by)
        return other

    def run(self, name: str, params: SamplingParams) -> None:
        """Run a stage that is on."""
        stage = STAGES[name]
        stage.run(self.living, params)
        if stage.sorts:
            self.living.settle()
        if name == "temperature":
            self.divided = True
            if not self.cut:
                self.tempered = self.living.taken_logprobs(self._taken)
        self._after(name)

    def run_mirostat(self, stops: list[int]) -> None:
        """Cut the rows where `MirostatRows` said."""
        self.living.cut_at(torch.tensor(stops).unsqueeze(1))
        self._after("mirostat")

    def _after(self, name: str) -> None:
        """Note which of the tokens taken a stage has cut."""
        self.cut = self.cut or name != "temperature"
        still = self.alive & self.living.taken_alive(self._taken)
        for row in (self.alive & ~still).nonzero().squeeze(1).tolist():
            self.removed_by[row] = name
        self.alive = still


def _taken_logits(part: ReplyPart, edited: EditedPart | None) -> torch.Tensor:
    """The edited logits of the tokens taken, (r,) float64."""
    if edited is None:
        return part.taken_logits.double()
    column = torch.searchsorted(edited.ids, part.taken).clamp_(max=edited.ids.numel() - 1)
    touched = edited.ids[column] == part.taken
    logits = edited.logits.gather(1, column.unsqueeze(1))[:, 0]
    others = torch.full_like(logits, -torch.inf) if edited.forced else part.taken_logits
    return torch.where(touched, logits, others).double()


class _FirstIds:
    """Finds the lowest id among the tokens with some logit."""

    def __init__(self, part: ReplyPart, edited: EditedPart | None) -> None:
        self._part = part
        none = torch.empty(0, dtype=torch.int64)
        self._edited_ids = none if edited is None else edited.ids
        self._logits = part.head_logits
        self._ids = part.head_ids
        if edited is not None:
            # One more than the vocabulary, for the -1 that pads heads.
            touched = torch.zeros(part.vocabulary + 1, dtype=torch.bool)
            touched[edited.ids] = True
            dead = touched[part.head_ids] | edited.forced
            self._logits = torch.cat(
                (part.head_logits.masked_fill(dead, -torch.inf), edited.logits.double()), 1
            )
            columns = edited.ids.expand(len(part.rows), -1)
            self._ids = torch.cat((part.head_ids, columns), 1)

    def find(self, logits: torch.Tensor, equals: torch.Tensor) -> torch.Tensor:
        """The lowest id with a logit in each row, (r,) int64.

        Args:
            logits: (r, 1) float64.
            equals: (r, 1), how many tokens have it.
        """
        same = (self._logits == logits) & (self._ids >= 0)
        found = self._ids.masked_fill(~same, self._part.vocabulary).amin(1)
        for row in (same.sum(1) < equals[:, 0]).nonzero().squeeze(1).tolist():
            other = self._part.tail_id(row, float(logits[row]), self._edited_ids)
            if other is not None:
                found[row] = min(int(found[row]), other)
        return found
