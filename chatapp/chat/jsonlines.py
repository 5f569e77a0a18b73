"""One reply as JSON lines: a start, one object a token, an end.

The same objects come out of `chatapp ask --json` while they happen and out of an exported chat,
made by the same functions, so that a script reads both alike. What is not finite (the logprob of a
token that cannot be) is null, since JSON has no word for it; so is what a server does not tell.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from chatapp.chat.conversation import Reply
from chatapp.chat.record import TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.served import SERVERS, UNTOLD, entropy_at_least
from chatapp.chat.text import escape_json

_PARTS = (",", ":")
JsonObject = dict[str, Any]
"""What `json.dumps` takes; these stand at the program's outer edge, where values leave it."""


def start_json(reply: Reply, sampling: SamplingParams) -> JsonObject:
    """What is known before the first token; enough, with the tokens' ids, to replay the reply.

    `sampling`: what its first token is drawn with.
    """
    return {
        "type": "start",
        "model": reply.model,
        **({"runtime": reply.runtime} if reply.runtime else {}),
        **({"numbers": SERVERS[reply.runtime].meanings} if reply.runtime in SERVERS else {}),
        "prompt_tokens": _prompt_tokens(reply),
        "cached_tokens": reply.cached_tokens,
        "sampling": sampling_json(sampling),
        "seed": reply.seed,
        **({"prompt_ids": list(reply.prompt_ids)} if reply.prompt_ids else {}),
    }


def token_json(record: TokenRecord, sampling: SamplingParams | None = None) -> JsonObject:
    """One token, with the candidates its record carries.

    `sampling`: what it was drawn with, where that differs from the token before.
    """
    return {
        "type": "token",
        **_told(record, "index id token bytes text logprob tempered_prob prob"),
        "rank": record.rank or None,
        **_told(record, "entropy_bits"),
        **_bound(record),
        **_told(record, "p_end temperature"),
        "top_logprobs": [
            {
                **_told(candidate, "id token bytes logprob tempered_prob prob"),
                "removed_by": candidate.removed_by
                and _told(candidate.removed_by, "stage setting threshold value"),
            }
            for candidate in record.candidates
        ],
        **_told(record, "other_prob"),
        **({} if sampling is None else {"sampling": sampling_json(sampling)}),
    }


def end_json(reply: Reply) -> JsonObject:
    """How it ended. `text` is the joined texts of the tokens; `seconds` is decoding alone."""
    return {
        "type": "end",
        "finish_reason": None if reply.finish_reason is None else reply.finish_reason.value,
        "text": "".join(record.text for record in reply.records),
        "prompt_tokens": _prompt_tokens(reply),
        "completion_tokens": len(reply.records),
        **_told(reply, "seconds time_to_first_token tokens_per_second"),
    }


def sampling_json(sampling: SamplingParams) -> JsonObject:
    values = dataclasses.asdict(sampling)
    values["logit_bias"] = [[id_, _finite(bias)] for id_, bias in sampling.logit_bias]
    return values


def json_line(value: JsonObject) -> str:
    """One object on one line, without the newline.

    Text stays readable; what a terminal would obey, an eye can't see or UTF-8 can't write is a \\u
    escape, so that a line can be looked at as it is.
    """
    return escape_json(json.dumps(value, ensure_ascii=False, separators=_PARTS, allow_nan=False))


def _told(value: object, names: str) -> JsonObject:
    """Some fields of a value, by their names with spaces between."""
    found = {name: getattr(value, name) for name in names.split()}
    for name, one in found.items():
        if isinstance(one, float):
            found[name] = _finite(one)
        elif isinstance(one, bytes):
            found[name] = list(one)
        elif name == "id" and one >= UNTOLD:
            found[name] = None
    return found


def _prompt_tokens(reply: Reply) -> int | None:
    return None if reply.runtime in SERVERS and not reply.prompt_ids else len(reply.prompt_ids)


def _bound(record: TokenRecord) -> JsonObject:
    """What can be said of an entropy that is not told."""
    if not math.isnan(record.entropy_bits) or math.isnan(bound := entropy_at_least(record)):
        return {}
    return {"entropy_bits_at_least": bound}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
