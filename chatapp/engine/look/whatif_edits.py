"""The logit edits of the sampler, for many steps of one reply at once.

Edits touch few tokens: those that stand in the text already, the biased, the banned, the ends. So
only their columns are edited, by the same arithmetic in the same order as `chain._run_edits` does a
whole row, and put back into the table of logits where they now belong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.look.whatif_tables import LogitTable, Removals, ReplyPart
from chatapp.engine.sampler import edits
from chatapp.engine.sampler.repeats import TextMatches, growing_matches


@dataclass(frozen=True, slots=True)
class ReplyIds:
    """What the stages may look at besides the logits; `StepContext` for all steps."""

    ids: torch.Tensor
    """(p + n,) int64: prompt and reply."""
    prompt_length: int
    end_ids: torch.Tensor
    """(e,) int64."""
    dry_breakers: Callable[[], frozenset[int]]
    """The tokens over which no repeat reaches; asked for only while DRY is on."""

    def before(self, row: int) -> torch.Tensor:
        """The ids before the token that a row is about."""
        return self.ids[: self.prompt_length + row]


@dataclass(frozen=True, slots=True, eq=False)
class EditedPart:
    """Rows after the edits."""

    table: LogitTable
    ids: torch.Tensor
    """(u,) int64, ascending: the tokens that may be edited in some row."""
    logits: torch.Tensor
    """(r, u) float32: their logits after the edits."""
    banned_by: list[str | None]
    """For each row, the first edit that bans the token taken, if any; a forced end may free it."""
    forced: bool
    """Whether only the ends are in play."""


def edit_part(
    part: ReplyPart, first: int, params: SamplingParams, reply: ReplyIds
) -> EditedPart | None:
    """Edit some rows; None when no edit is on.

    Args:
        part: the rows.
        first: which row of the reply is the part's first.
        params: the settings.
        reply: the ids.
    """
    ids = _touched(params, reply, part.vocabulary)
    if ids.numel() == 0:
        return None
    columns = part.columns(ids)
    editing = _Editing(part, first, ids, columns.logits, reply)
    editing.run(params)
    forced = params.end == "force" and reply.end_ids.numel() > 0
    table = part.table
    if forced:
        table = replace(table, counts=torch.zeros_like(table.counts))
    removed = Removals(columns.removals.places, columns.removals.counts * (not forced))
    table = table.with_changes(removed, editing.logits.double())
    return EditedPart(table, ids, editing.logits, editing.banned_by, forced)


def _touched(params: SamplingParams, reply: ReplyIds, vocabulary: int) -> torch.Tensor:
    """The ids that some edit may touch, ascending, each once."""
    touched = [torch.tensor([*(pair[0] for pair in params.logit_bias), *params.banned]).long()]
    if (
        params.repetition_penalty != 1
        or params.presence_penalty
        or params.frequency_penalty
        or params.dry_multiplier
        or params.no_repeat_ngram
    ):
        touched.append(reply.ids)
    if params.end != "allow" or params.min_tokens:
        touched.append(reply.end_ids)
    ids: torch.Tensor = torch.unique(torch.cat(touched))
    return ids[(ids >= 0) & (ids < vocabulary)]


class _Editing:
    """Columns of logits on their way through the edits."""

    def __init__(
        self,
        part: ReplyPart,
        first: int,
        ids: torch.Tensor,
        logits: torch.Tensor,
        reply: ReplyIds,
    ) -> None:
        self.model_logits = logits
        self.logits = logits.clone()
        self.banned_by: list[str | None] = [None] * len(part.rows)
        self._part = part
        self._first = first
        self._ids = ids
        self._reply = reply
        column = torch.searchsorted(ids, part.taken).clamp_(max=ids.numel() - 1)
        self._taken = torch.where(ids[column] == part.taken, column, -1)

    def run(self, params: SamplingParams) -> None:
        """All edits that are on, in the order of `EDITS`."""
        if params.logit_bias or params.banned:
            self._apply("bias", self._biased(params))
        if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
            self._penalise(params)
        if params.dry_multiplier:
            self._apply("dry", self.logits - self._dry(params))
        if params.no_repeat_ngram:
            repeats = self._repeats(params.no_repeat_ngram)
            self._apply("no_repeat_ngram", self.logits.masked_fill(repeats, -torch.inf))
        self._run_end_rules(params)

    def _apply(self, stage: str, logits: torch.Tensor) -> None:
        """Go over to the edited logits; note for which rows that bans the token taken."""
        banned = (logits == -torch.inf) & (self.logits > -torch.inf)
        known = self._taken >= 0
        gone = banned.gather(1, self._taken.clamp(min=0).unsqueeze(1))[:, 0] & known
        for row in gone.nonzero().squeeze(1).tolist():
            self.banned_by[row] = self.banned_by[row] or stage
        self.logits = logits

    def _biased(self, params: SamplingParams) -> torch.Tensor:
        row = torch.zeros(self._part.vocabulary)
        edit = edits.bias(row, params.logit_bias, params.banned)
        edit.apply_to(row)
        return self.logits + row[self._ids]

    def _penalise(self, params: SamplingParams) -> None:
        counts = self._occurrences(params.penalty_window)
        seen = counts > 0
        penalty = params.repetition_penalty
        if penalty != 1:
            before = self.logits
            after = torch.where(before > 0, before / penalty, before * penalty)
            self._apply("repetition", torch.where(seen, after, before))
        if params.presence_penalty:
            after = self.logits - params.presence_penalty
            self._apply("presence", torch.where(seen, after, self.logits))
        if params.frequency_penalty:
            after = self.logits - counts * params.frequency_penalty
            self._apply("frequency", torch.where(seen, after, self.logits))

    def _occurrences(self, window: int) -> torch.Tensor:
        """How often each id stands in the penalty window of each row, (r, u) int64."""
        rows = len(self._part.rows)
        width = self._ids.numel()
        before = self._reply.before(self._first)
        inside = before[-window:] if window else before
        changes = torch.zeros(rows, width, dtype=torch.int64)
        changes[0] = torch.bincount(self._columns(inside), minlength=width + 1)[:width]
        end = self._reply.prompt_length + self._first
        comes = self._columns(self._reply.ids[end : end + rows - 1])
        row = torch.arange(1, rows)
        known = comes < width
        changes.index_put_((row[known], comes[known]), torch.tensor(1), accumulate=True)
        if window:
            leaving = row + (end - window - 1)  # the place that the window has just moved off
            there = leaving >= 0
            goes = self._columns(self._reply.ids[leaving[there]])
            known = goes < width
            places = (row[there][known], goes[known])
            changes.index_put_(places, torch.tensor(-1), accumulate=True)
        return changes.cumsum(0)

    def _columns(self, ids: torch.Tensor) -> torch.Tensor:
        """The column of each id; one past the last for an id without a column."""
        width = self._ids.numel()
        column = torch.searchsorted(self._ids, ids)
        return torch.where(self._ids[column.clamp(max=width - 1)] == ids, column, width)

    def _dry(self, params: SamplingParams) -> torch.Tensor:
        """What DRY subtracts, (r, u) float32."""
        allowed = params.dry_allowed_length
        breakers = torch.tensor(list(self._reply.dry_breakers()), dtype=torch.int64)
        known = self._matches
        # No repeat reaches over a breaker, nor out of the window.
        limit, start = self._since(breakers), self._starts(params.penalty_window)
        lengths = torch.minimum(limit[known.texts], known.places - start[known.texts])
        lengths = torch.minimum(known.lengths, lengths)
        counted = lengths >= max(allowed, 1)
        known, lengths = known.where(counted), lengths[counted]
        penalties = torch.zeros(len(self._part.rows), self._ids.numel() + 1)
        if lengths.numel():
            each = [
                edits.dry_penalty(length, params.dry_multiplier, params.dry_base, allowed)
                for length in range(allowed, int(lengths.max()) + 1)
            ]
            values = torch.tensor(each)[lengths - allowed]
            target = known.texts * penalties.shape[1] + self._columns(self._reply.ids[known.places])
            penalties.view(-1).scatter_reduce_(0, target, values, "amax")
        if allowed == 0:
            # Every token of the window but its first follows a repeat of no tokens at all.
            floor = edits.dry_penalty(0, params.dry_multiplier, params.dry_base, 0)
            followed = self._last_places() > start.unsqueeze(1)
            penalties[:, :-1].clamp_(min=floor * followed)
        return penalties[:, :-1].masked_fill_(torch.isin(self._ids, breakers), 0.0)

    def _repeats(self, size: int) -> torch.Tensor:
        """Which tokens would repeat an n-gram of that size, (r, u) bool."""
        if size == 1:
            return self._last_places() >= 0
        known = self._matches
        known = known.where(known.lengths >= size - 1)
        repeats = torch.zeros(len(self._part.rows), self._ids.numel() + 1, dtype=torch.bool)
        repeats[known.texts, self._columns(self._reply.ids[known.places])] = True
        return repeats[:, :-1]  # ids of other models have no column

    @cached_property
    def _matches(self) -> TextMatches:
        """The matches of the text before each row; kept no longer than the part is edited."""
        first = self._reply.prompt_length + self._first
        return growing_matches(self._reply.ids[: first + len(self._part.rows)].tolist(), first)

    def _sizes(self) -> torch.Tensor:
        """How long the text before each row is, (r,) int64."""
        return torch.arange(len(self._part.rows)) + self._reply.prompt_length + self._first

    def _starts(self, window: int) -> torch.Tensor:
        """Where the penalty window of each row begins, (r,) int64."""
        sizes = self._sizes()
        return (sizes - window).clamp_(min=0) if window else torch.zeros_like(sizes)

    def _since(self, breakers: torch.Tensor) -> torch.Tensor:
        """How many tokens at the end of each text are none of (b,) breakers, (r,) int64."""
        ids = self._reply.ids
        after = torch.where(torch.isin(ids, breakers), torch.arange(1, ids.numel() + 1), 0)
        behind = torch.cat((torch.zeros(1, dtype=torch.int64), after.cummax(0).values))
        sizes = self._sizes()
        return sizes - behind[sizes]

    def _last_places(self) -> torch.Tensor:
        """Where each id stands last in the text before each row, (r, u) int64; -1 for nowhere."""
        sizes, width = self._sizes(), self._ids.numel()
        places = torch.arange(int(sizes[-1]))
        columns = self._columns(self._reply.ids[: places.numel()])
        row = (places + 1 - sizes[0]).clamp_(min=0)  # the first whose text holds the place
        last = torch.full((sizes.numel(), width + 1), -1)
        last.view(-1).scatter_reduce_(0, row * (width + 1) + columns, places, "amax")
        return last.cummax(0).values[:, :-1]

    def _run_end_rules(self, params: SamplingParams) -> None:
        ends = torch.isin(self._ids, self._reply.end_ids)
        if params.end == "force":
            if self._reply.end_ids.numel():
                forced = torch.where(ends, self.model_logits, -torch.inf)
                self._apply("end", forced)
                self._settle_forced_end()
            return
        row = torch.arange(len(self._part.rows)) + self._first
        short = (row < params.min_tokens).unsqueeze(1)
        if params.min_tokens:
            self._apply("min_tokens", self.logits.masked_fill(short & ends, -torch.inf))
        if params.end == "forbid":
            self._apply("end", self.logits.masked_fill(ends, -torch.inf))

    def _settle_forced_end(self) -> None:
        """A forced end bans the tokens without a column too."""
        for row, column in enumerate(self._taken.tolist()):
            if column < 0 and self._part.taken_logits[row] > -torch.inf:
                self.banned_by[row] = "end"
