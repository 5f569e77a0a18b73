"""What can be worked out of a reply's logits before any setting is known.

The stages of the sampler ask how many tokens lie above a logit, and how much probability. Neither
needs to know which tokens these are. In half precision a row of fifty thousand logits has some two
thousand different values, so a row becomes a short table: each value, largest first, with how many
tokens have it. The tokens of the head, whose logits are exact, have a place each.

A whole reply is a few million such places instead of twenty-five million logits, and nothing of it
has to be sorted or read again while a person moves a slider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from chatapp.engine.look.history import LogitRow
from chatapp.engine.sampler.alive import marked

_INFINITE = 0x7C00
"""The bits of half precision's infinity, without the sign; all below are finite."""


@dataclass(frozen=True, eq=False)
class LogitTable:
    """The logits of r rows as sorted places, and how many tokens stand at each."""

    logits: torch.Tensor
    """(r, m) float64, largest first; -inf where a row has fewer places."""
    counts: torch.Tensor
    """(r, m) float64, whole numbers; 0 where nothing stands."""

    @cached_property
    def ascending(self) -> torch.Tensor:
        """Minus the logits: what a binary search goes through."""
        return -self.logits

    @cached_property
    def numbers(self) -> torch.Tensor:
        """How many tokens stand before each place, (r, m + 1) float64."""
        return running_sums(self.counts)

    def with_changes(self, removed: Removals, added: torch.Tensor) -> LogitTable:
        """Take tokens from their places and put them where their edited logits belong.

        Args:
            removed: which places lose how many.
            added: (r, u) float64, the edited logits; -inf is out of play.
        """
        counts = self.counts.scatter_add(1, removed.places, -removed.counts)
        added = added.sort(dim=1, descending=True).values
        rows, old = counts.shape
        new = added.shape[1]
        # Where an added logit goes: behind the places at least as large, and the added before it.
        behind = torch.searchsorted(self.ascending, -added, right=True)
        first = torch.arange(rows).unsqueeze(1) * (old + new)
        places = (behind + torch.arange(new) + first).flatten()
        is_old = torch.ones(rows * (old + new), dtype=torch.bool)
        is_old[places] = False
        return LogitTable(
            _merge(self.logits, added, is_old, places),
            _merge(counts, (added > -torch.inf).double(), is_old, places),
        )


def _merge(
    old: torch.Tensor, new: torch.Tensor, is_old: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """(r, m) numbers in their order with (r, u) new ones between them, (r, m + u).

    NumPy's assignment by mask is several times as quick as torch's by index.
    """
    merged = np.empty(is_old.numel())
    merged[is_old.numpy()] = old.flatten().numpy()
    merged[places.numpy()] = new.flatten().numpy()
    return torch.from_numpy(merged).view(old.shape[0], -1)


def running_sums(numbers: torch.Tensor) -> torch.Tensor:
    """Running sums along the rows of (r, m), beginning with 0: (r, m + 1)."""
    sums = torch.empty(numbers.shape[0], numbers.shape[1] + 1, dtype=numbers.dtype)
    sums[:, 0] = 0
    torch.cumsum(numbers, 1, out=sums[:, 1:])
    return sums


@dataclass(frozen=True, slots=True, eq=False)
class Removals:
    """Tokens to be taken from a table."""

    places: torch.Tensor
    """(r, k) int64."""
    counts: torch.Tensor
    """(r, k) float64: 1, or 0 for no token."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The unedited logits of some tokens, in every row."""

    ids: torch.Tensor
    """(u,) int64."""
    logits: torch.Tensor
    """(r, u) float32, as `LogitRow.logits` has them."""
    removals: Removals
    """What takes them out of the table."""


class ReplyPart:
    """Neighbouring rows of a reply, with all that does not depend on the settings."""

    def __init__(self, rows: Sequence[LogitRow], taken: Sequence[int]) -> None:
        """Build the table.

        Args:
            rows: the logits of some steps.
            taken: the token taken at each of them.
        """
        self.rows = rows
        self.vocabulary = rows[0].half.numel()
        self.taken = torch.tensor(taken)
        self._best = torch.tensor([[row.best] for row in rows], dtype=torch.float32)
        self._floor = torch.tensor([[row.floor] for row in rows], dtype=torch.float32)
        self._columns: Columns | None = None
        self._stack_heads()
        self._count_tails()
        self.head_logits, order = self._head_logits.sort(dim=1, descending=True, stable=True)
        self.head_ids = self._head_ids.gather(1, order)
        self.table = LogitTable(
            torch.cat((self.head_logits, self._tail_logits.double()), 1),
            torch.cat(((self.head_ids >= 0).double(), self._tail_counts), 1),
        )
        distinct, column = torch.unique(self.taken, return_inverse=True)
        self.taken_logits = self.columns(distinct).logits.gather(1, column.unsqueeze(1))[:, 0]
        """(r,) float32: the unedited logits of the tokens taken."""
        self.taken_logprobs = self.taken_logits.double() - _log_mass(self.table)
        """(r,) float64: ln p of the tokens taken under the model alone."""

    def columns(self, ids: torch.Tensor) -> Columns:
        """The logits of (u,) int64 ids (ascending, below V) in every row, and their places.

        A control that is turned asks for the same ids again and again; the last ones are kept.
        """
        if self._columns is None or not torch.equal(self._columns.ids, ids):
            self._columns = self._gather(ids)
        return self._columns

    def _gather(self, ids: torch.Tensor) -> Columns:
        half = torch.stack([row.half[ids] for row in self.rows])
        logits = self._below_head(half)
        head_width = self.head_ids.shape[1]
        finite = half.isfinite()  # what is -inf has no place to be taken from
        places = (head_width + self._place_of_half[_magnitude(half)]).masked_fill_(~finite, 0)
        counts = finite.double()
        # The head's tokens have their exact logits, and places of their own.
        column_of = torch.full((self.vocabulary + 1,), -1)  # one more for padding's -1
        column_of[ids] = torch.arange(ids.numel())
        column = column_of[self.head_ids]
        row, place = (column >= 0).nonzero(as_tuple=True)
        column = column[row, place]
        logits[row, column] = self.head_logits[row, place].float()
        places[row, column] = place
        counts[row, column] = 1.0
        return Columns(ids, logits, Removals(places, counts))

    def tail_id(self, row: int, logit: float, without: torch.Tensor) -> int | None:
        """The lowest id with exactly that unedited logit, but for those in `without`."""
        found = marked(self.rows[row].logits() == logit)
        found = found[~torch.isin(found, without)]
        return int(found[0]) if found.numel() else None

    def _stack_heads(self) -> None:
        """(r, k) ids and logits; -1 and the smallest logit again where a row has fewer."""
        count = len(self.rows)
        width = max(row.head_ids.numel() for row in self.rows)
        self._head_ids = torch.full((count, width), -1)
        self._head_logits = self._floor.double().repeat(1, width)
        for index, row in enumerate(self.rows):
            size = row.head_ids.numel()
            self._head_ids[index, :size] = row.head_ids
            self._head_logits[index, :size] = row.head_logits

    def _count_tails(self) -> None:
        """How often each half-precision value occurs in a row, without the row's head."""
        found: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        present = np.zeros(_INFINITE, dtype=bool)
        for row in self.rows:
            keys = row.half.numpy().view(np.uint16) & 0x7FFF
            keys[row.head_ids.numpy()] = _INFINITE
            tail = np.bincount(keys, minlength=_INFINITE)[:_INFINITE]
            found.append(np.flatnonzero(tail != 0))  # of truth values it is found faster
            counts.append(tail[found[-1]])
            present[found[-1]] = True
        used = np.flatnonzero(present)
        place = np.zeros(0x8000, dtype=np.int64)
        place[used] = np.arange(used.size)
        table = np.zeros((len(self.rows), used.size))
        for row_counts, keys, tail in zip(table, found, counts, strict=True):
            row_counts[place[keys]] = tail
        self._tail_counts = torch.from_numpy(table)
        halves = torch.from_numpy((used | 0x8000).astype(np.uint16).view(np.int16))
        self._tail_logits = self._below_head(halves.view(torch.float16))
        self._place_of_half = torch.from_numpy(place)

    def _below_head(self, half: torch.Tensor) -> torch.Tensor:
        """`LogitRow.below_head` for all rows."""
        return torch.minimum(half.float() + self._best, self._floor)


def _magnitude(half: torch.Tensor) -> torch.Tensor:
    """The bits of float16 numbers of one sign: int64 that grow with their distance from 0."""
    return (half.view(torch.int16) & 0x7FFF).long()


def _log_mass(table: LogitTable) -> torch.Tensor:
    """ln Σ exp(logit) of each row, (r,) float64."""
    best = table.logits[:, :1]
    mass = (table.logits - best).exp_().mul_(table.counts).sum(1)
    return best[:, 0] + mass.log()
