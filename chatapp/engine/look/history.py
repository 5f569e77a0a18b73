"""The logits of recent replies, so that other settings can be tried without running the model.

A row of logits takes two bytes a token of the vocabulary: the distance from the row's largest, in
65,535 equal steps down to the smallest. Real rows span 30 to 60 nats, so a step is under a
thousandth of a nat, and no distance is off by more than half a step, δ. Errors of the individual
probabilities follow to first order from δp_i = p_i·(δx_i − Σ_j p_j·δx_j), so that
|δp| ≤ 2·δ·p·(1 − p) ≤ δ/2: under 0.0003. That is what the worst of all rows could show, every
distance off to the same side; real ones are off to both, and stay below 10⁻⁴, as the tests measure.

Filters compare, though, and a comparison may tip over the smallest error: "at least 5 % of the best
one's" is yes or no. The tokens that decide such questions are those near the top, so these (the
"head", down to e⁻⁸ of the best one) are kept in single precision besides. A head costs about a
twentieth of its row.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from chatapp.chat.facts import IsCancelled, Report
from chatapp.engine.look.teacher_forcing import force
from chatapp.engine.runtimes.base import Floats, Runtime
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.chain import Snapshot

HEAD_NATS = 8.0
"""How far below the best one a token may be to have its exact logit kept."""

_OUT = 65_535
"""The step of what is out of play."""

HEAD_LEAST, HEAD_LIMIT = 256, 1024
"""How many tokens have their exact logits kept, however steep or flat the row is."""


@dataclass(frozen=True, slots=True, eq=False)
class LogitRow:
    """The logits of one step, small."""

    steps: npt.NDArray[np.uint16]
    """(V,): how many steps each logit is below the largest; `_OUT` is -inf."""
    step: float
    """Of so many nats."""
    head: Alive
    """The tokens whose logits are exact, sorted."""
    has_dead: bool
    """Whether any logit is -inf."""

    @classmethod
    def of(cls, logits: Floats | Alive) -> LogitRow:
        """Make a row of (V,) logits, or of the set that they made."""
        row = logits if isinstance(logits, Alive) else Alive(logits)
        logits = row.logits
        best, least = logits.dtype.type(row.best), logits.min()
        distance = best - logits
        dead = None
        if least == -np.inf:
            dead = distance == np.inf
            distance[dead] = 0.0
            least = best - distance.max()
        step = max(float(best - least) / (_OUT - 1), 1e-9)
        distance *= np.float32(1 / step)
        distance += np.float32(0.5)
        steps = distance.astype(np.uint16)
        if dead is not None:
            steps[dead] = _OUT
        return cls(steps, step, _head(row), dead is not None)

    @property
    def best(self) -> float:
        return self.head.best

    def alive(self, total: float | None = None) -> Alive:
        """The row as it goes through the chain; the head alone is at hand, the rest when needed.

        `total`: the set's `total`, where it is known already.
        """
        count = None if self.has_dead else self.steps.size
        return Alive(self.logits, None, self.steps.size, head=self.head, count=count, total=total)

    def logits(self) -> Floats:
        """All of it: (V,), the head exact.

        Rounding does not lift any other token above the head.
        """
        row = self.steps.astype(np.float32)
        row *= np.float32(-self.step)
        row += np.float32(self.best)
        np.minimum(row, np.float32(self.head.logits[-1]), out=row)
        row[self.head.ids] = self.head.logits
        if self.has_dead:
            row[self.steps == _OUT] = -np.inf
        return row

    @property
    def bytes_used(self) -> int:
        return self.steps.nbytes + 16 * self.head.count


Rows = tuple[LogitRow, ...]
"""The logits that each token of a reply was taken from, in order."""


def _head(row: Alive) -> Alive:
    head = row.at_least(row.best - HEAD_NATS, compact=True)
    if head.count < HEAD_LEAST:
        return row.leaders(HEAD_LEAST)
    if head.count <= HEAD_LIMIT or head.ids is None:
        return head
    return Alive(head.logits[:HEAD_LIMIT], head.ids[:HEAD_LIMIT], row.vocabulary)


@dataclass(slots=True, eq=False)
class Recording:
    """The rows of one reply as it is written. Made by `LogitHistory.begin`."""

    ids: list[int]
    """The prompt and the reply so far."""
    first: int
    """The index in `ids` of the token that the first row is about."""
    rows: list[LogitRow]
    """The further ones follow without a gap."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The step that a reply is held at: its token is not taken yet, so no row tells of it."""

    ids: tuple[int, ...]
    """Prompt and reply before it."""
    logits: Floats
    """(V,)."""
    state: Snapshot
    """The chain's state before it."""


class LogitHistory:
    """Rows of recent replies by their exact ids, within a limit of memory.

    When it is over the limit it forgets whole replies, the one used longest ago first. A reply that
    branches off another has the rows of their common start in common with it. Replies are recorded
    by one thread; `rows` and `keep` may be called from any.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held: Held | None = None
        """What was held last; what it tells stays true when its token is taken."""
        self._recordings: OrderedDict[int, Recording] = OrderedDict()
        self._apart: Recording | None = None
        """Rows computed anew for one question, of a reply that is too long to be kept whole."""
        self._uses: Counter[int] = Counter()  # how many recordings hold a row, by its identity
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes_used(self) -> int:
        return self._bytes

    def begin(self, prompt_ids: Sequence[int], reply_ids: Sequence[int] = ()) -> Recording:
        """Begin to record a reply.

        `prompt_ids`: what the model reads before the reply. `reply_ids`: the start of the reply
        that is there already, when it goes on or branches; rows of it that are known are taken
        over.
        """
        ids = [*prompt_ids, *reply_ids]
        with self._lock:
            known = self._find(ids, len(prompt_ids)) if reply_ids else None
            first = len(prompt_ids) if known is not None else len(ids)
            recording = Recording(ids, first, list(known or ()))
            self._add(recording)
        return recording

    def append(self, recording: Recording, token_id: int, logits: Floats | Alive) -> None:
        """Keep the logits, (V,), that the next token of a reply was taken from, or their set.

        A reply that has been forgotten (it alone is over the limit, say) is not taken up again.
        """
        if id(recording) not in self._recordings:
            return
        row = LogitRow.of(logits)
        with self._lock:
            if id(recording) not in self._recordings:  # cleared meanwhile
                return
            recording.rows.append(row)
            recording.ids.append(token_id)
            self._hold(row)
            self._recordings.move_to_end(id(recording))
            self._shrink()

    def keep(
        self,
        prompt_ids: Sequence[int],
        reply_ids: Sequence[int],
        rows: Rows,
        *,
        apart: bool = False,
    ) -> None:
        """Keep rows that were computed anew; `apart` from all others, until there are new ones."""
        recording = Recording([*prompt_ids, *reply_ids], len(prompt_ids), list(rows))
        with self._lock:
            if apart:
                self._apart = recording
            else:
                self._add(recording)

    def rows(self, prompt_ids: Sequence[int], reply_ids: Sequence[int]) -> Rows | None:
        """The rows of a whole reply; None when some of them are gone, or never were."""
        with self._lock:
            return self._find([*prompt_ids, *reply_ids], len(prompt_ids))

    def row(self, ids: Sequence[int]) -> LogitRow | None:
        """The row about the token behind some ids, whichever was taken; None when it is gone."""
        with self._lock:
            found = self._find([*ids, 0], len(ids))  # the last of them decides nothing
        return found[0] if found else None

    def clear(self) -> None:
        self.held = self._apart = None
        with self._lock:
            self._recordings.clear()
            self._uses.clear()
            self._bytes = 0

    def _find(self, ids: list[int], start: int) -> Rows | None:
        """Rows about ids[start:]. What a row is about is decided by the ids before it alone."""
        for known in (*reversed(self._recordings.values()), self._apart):
            if known is None or known.first > start or known.first + len(known.rows) < len(ids):
                continue
            if known.ids[: len(ids) - 1] != ids[:-1]:
                continue
            if id(known) in self._recordings:
                self._recordings.move_to_end(id(known))
            return tuple(known.rows[start - known.first : len(ids) - known.first])
        return None

    def _add(self, recording: Recording) -> None:
        self._recordings[id(recording)] = recording
        for row in recording.rows:
            self._hold(row)
        self._shrink()

    def _hold(self, row: LogitRow) -> None:
        self._uses[id(row)] += 1
        if self._uses[id(row)] == 1:
            self._bytes += row.bytes_used

    def _shrink(self) -> None:
        while self._bytes > self.limit_bytes and self._recordings:
            _, oldest = self._recordings.popitem(last=False)
            for row in oldest.rows:
                self._uses[id(row)] -= 1
                if self._uses[id(row)] == 0:
                    del self._uses[id(row)]
                    self._bytes -= row.bytes_used


def recompute(
    runtime: Runtime,
    prompt_ids: Sequence[int],
    reply_ids: Sequence[int],
    on_progress: Report,
    cancelled: IsCancelled,
) -> Rows | None:
    """The rows of a reply from one pass of the model over prompt and reply.

    For replies that are gone from the history, and for chats of an earlier day. The chat's KV cache
    is not touched. Give the result to `LogitHistory.keep`. Returns None when it was cancelled.
    Raises EngineError: prompt and reply are longer than the model's context, or the model failed.
    """
    ids = [*prompt_ids, *reply_ids]
    pieces = force(runtime, ids, len(prompt_ids), on_progress, cancelled)
    rows = tuple(chain.from_iterable(map(LogitRow.of, piece.logits) for piece in pieces))
    return rows if len(rows) == len(reply_ids) else None
