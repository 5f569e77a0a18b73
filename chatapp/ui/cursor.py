"""The one cursor: which message is pointed at, and which of its tokens.

Where there is no cursor, everything follows the newest token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatapp.chat.record import TokenRecord


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is pointed at."""

    message_id: str
    token: int | None = None
    """Position in the reply, from 0; None for a message that no model wrote."""


def next_least_certain(records: Sequence[TokenRecord], current: int | None) -> int | None:
    """The token after `current` in the order of the model's probability, least probable first.

    Args:
        records: of a reply.
        current: where this order was left; None begins with the least probable one of all.

    Returns:
        Its position; after the last one the first again. None when there are no tokens.
    """
    # A token of which a server tells nothing (NaN) can't be said to be uncertain.
    known = [index for index, record in enumerate(records) if record.logprob == record.logprob]
    order = sorted(known, key=lambda index: (records[index].logprob, index))
    if not order:
        return None
    if current not in order:
        return order[0]
    return order[(order.index(current) + 1) % len(order)]
