"""Token records for tests of the interface: a small vocabulary through the default chain.

The numbers are consistent (columns sum to 1, removals follow the stages' definitions), so that a
test of a panel shows what the panel would show of a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from chatapp.chat.record import Candidate, Removal, TokenRecord

VOCABULARY = 49_152


def record(
    words: Mapping[str | bytes, float],
    *,
    chosen: int = 0,
    index: int = 0,
    temperature: float = 0.7,
    top_p: float = 0.95,
    min_p: float = 0.05,
    top_k: int = 50,
    p_end: float = 0.003,
    first_id: int = 500,
) -> TokenRecord:
    """A record over some tokens and their model probabilities, most probable first.

    What the probabilities leave of 1 belongs to the rest of the vocabulary, one token's share each.
    """
    probs = list(words.values())
    rest = 1 - math.fsum(probs)
    others = VOCABULARY - len(probs)
    weights = [p ** (1 / temperature) for p in probs]
    rest_weight = others * (rest / others) ** (1 / temperature) if rest > 1e-12 else 0.0
    total = math.fsum(weights) + rest_weight
    tempered = [weight / total for weight in weights]
    removals = _removals(tempered, top_k, top_p, min_p)
    kept = math.fsum(p for p, cut in zip(tempered, removals, strict=True) if cut is None)
    ids = [first_id + 7 * place for place in range(len(probs))]
    texts = [text if isinstance(text, bytes) else text.encode() for text in words]
    candidates = tuple(
        Candidate(
            id=ids[place],
            token=texts[place].decode("utf-8", "backslashreplace"),
            bytes=texts[place],
            logprob=math.log(probs[place]),
            tempered_prob=tempered[place],
            prob=0.0 if removals[place] else tempered[place] / kept,
            rank=place + 1,
            removed_by=removals[place],
        )
        for place in range(len(probs))
    )
    taken = candidates[chosen]
    return TokenRecord(
        index=index,
        id=taken.id,
        token=taken.token,
        bytes=taken.bytes,
        text=taken.token,
        logprob=taken.logprob,
        tempered_prob=taken.tempered_prob,
        prob=taken.prob,
        rank=taken.rank,
        entropy_bits=_entropy(probs) + (rest * math.log2(others / rest) if rest > 1e-12 else 0.0),
        final_entropy_bits=_entropy([c.prob for c in candidates if c.prob]),
        p_end=p_end,
        temperature=temperature,
        candidates=candidates,
        other_count=others,
        other_model_prob=max(rest, 0.0),
        other_tempered_prob=rest_weight / total,
        other_prob=0.0,
        draw=0.4312,
    )


def _removals(
    tempered: Sequence[float], top_k: int, top_p: float, min_p: float
) -> list[Removal | None]:
    """top-k, top-p and min-p one after the other, as the default chain runs them."""
    found: list[Removal | None] = []
    before = 0.0
    best = tempered[0]
    for place, p in enumerate(tempered):
        if place >= top_k:
            found.append(Removal("top_k", top_k, top_k, place + 1))
        elif before >= top_p:
            found.append(Removal("top_p", top_p, top_p, before))
        elif p < min_p * best:
            found.append(Removal("min_p", min_p, min_p * best, p))
        else:
            found.append(None)
        before += p
    return found


def _entropy(probs: Sequence[float]) -> float:
    return -math.fsum(p * math.log2(p) for p in probs if p > 0)


COLOURS: Mapping[str | bytes, float] = {
    " Blue": 0.621,
    " Yellow": 0.201,
    " Green": 0.061,
    " blue": 0.043,
    " and": 0.021,
    " yellow": 0.011,
    "\n": 0.0081,
    " Orange": 0.0062,
    " Cyan": 0.0041,
    " Purple": 0.0023,
    " Black": 0.0014,
    " White": 0.0009,
    " Magenta": 0.00061,
    " the": 0.00042,
    " or": 0.00031,
    " Pink": 0.00024,
    " B": 0.00012,
    "<|im_end|>": 0.00011,
    b"\xe2\x96": 0.00009,
    " Violet": 0.00007,
}
"""Twenty candidates of one step, as a small model weighs them."""

HOSTILE: Mapping[str | bytes, float] = {
    "[/": 0.3,
    "[bold red]": 0.2,
    "\x1b[31m\x1b]52;c;aGk=\x07": 0.1,
    "\u202eevil\u202c": 0.08,
    "漢字かな交じり文の長い例": 0.06,
    "👨\u200d👩\u200d👧🇩🇪❤\ufe0f": 0.05,
    "x" * 10_000: 0.04,
    "\u0301" * 500: 0.03,
    "\r\n\t ": 0.02,
    b"\xff\xfe\x80": 0.01,
    "": 0.01,
    "क्षि" * 30: 0.01,
}
"""Tokens that a careless table breaks on."""


def reply(length: int) -> list[TokenRecord]:
    """A reply of so many tokens: the same candidates, more or less peaked, now and then the second.

    The end comes nearer: P(end) rises towards the last token.
    """
    return [
        record(
            {text: p * _share(place) for text, p in COLOURS.items()},
            chosen=int(place % 5 == 3),
            index=place,
            p_end=min(1.0, 0.9 * math.exp(-(length - 1 - place) / 2)),
        )
        for place in range(length)
    ]


def _share(place: int) -> float:
    """How much of the mass the candidates have; the first token has all that is theirs."""
    return 1 - 0.6 * abs(math.sin(place * 1.7))
