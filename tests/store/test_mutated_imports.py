"""Files of conversations, damaged or made to harm: they come in, or are refused in words."""

from __future__ import annotations

import copy
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import Template
from chatapp.session.session import Session
from chatapp.store.chats import Chats
from chatapp.store.formats.export_file import EXPORT_FORMATS, export_text
from chatapp.store.formats.import_file import import_text
from chatapp.store.formats.own_json import export_json
from tests.store.samples import make_conversation
from tests.ui.scripted import FACTS, ScriptedEngine

SLOW_SECONDS = 10.0
"""Of the processor, for a file of some kilobytes."""
MUCH_KIBIBYTES = 500 << 10

HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e308,
    -1e308, 1e-320, "", "x", "\x00", "\ud800", "\udfff\ud800", "\u202e\x9b", "a" * 70_000, "{}",
    "-inf", "1e999", "AAAA", "////", "=", [], {}, [[]], [None], {"": None}, [0] * 1000,
    {"float": "nan"}, {"float": "inf"}, {"float": "-inf"}, {"float": "1e400"}, {"float": []},
    {"float": "x" * 5000}, {"float": "1" * 5000},
]  # fmt: skip


def originals() -> list[Any]:
    ours = json.loads(export_json([make_conversation("c", turns=2, tokens=3)]))
    said = [("system", "be kind"), ("user", "hello"), ("assistant", "hi"), ("user", "go on")]
    openai = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
    mapping: dict[str, Any] = {"0": {"id": "0", "parent": None, "children": ["1"], "message": None}}
    for place, (role, text) in enumerate(said, 1):
        mapping[str(place)] = {
            "id": str(place),
            "parent": str(place - 1),
            "children": [str(place + 1)] if place < len(said) else [],
            "message": {
                "author": {"role": role},
                "create_time": 1e9 + place,
                "content": {"content_type": "text", "parts": [text]},
            },
        }
    chatgpt = [{"title": "t", "create_time": 1e9, "current_node": "4", "mapping": mapping}]
    # Our own has the most to get wrong.
    return [ours, ours, ours, {"messages": openai}, [{"messages": openai}] * 2, chatgpt]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    return found


def mutated(rng: random.Random) -> bytes:
    document = json.loads(json.dumps(rng.choice(originals())))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        spots = places(document)
        if not spots:
            break
        holder, key = rng.choice(spots)
        what = rng.randrange(7)
        if what == 0:
            del holder[key]
        elif what == 1:
            other, place = rng.choice(spots)
            holder[key] = json.loads(json.dumps(other[place])) if _is_there(other, place) else 0
        elif what == 2 and isinstance(holder, list):
            holder.extend(json.loads(json.dumps(holder)) * rng.choice((1, 3)))
        elif what == 3 and isinstance(holder, dict):
            holder[rng.choice(("", "id", "float", "extra", "\ud800"))] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(rng.choice(HOSTILE))
    data = bytearray(json.dumps(document).encode())
    if rng.random() < 0.15:  # the bytes themselves
        for _ in range(rng.randrange(1, 20)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    elif rng.random() < 0.05:
        depth = rng.choice((500, 5_000, 200_000))
        data[:0] = b'{"a":' * depth
    return bytes(data)


def _is_there(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def bring_in(data: bytes, chats: Chats) -> None:
    """Import, keep, load, ask and export, as the program does."""
    session = Session(
        ScriptedEngine(),
        None,
        template=Template("plain"),
        formats=PromptFormat,
        sampling=SamplingParams(),
    )
    for conversation in import_text(data, 1e9).conversations:
        kept = chats.load(chats.add(conversation).id).conversation
        session.conversation = kept
        session.facts = replace(FACTS, sha256="ab" * 32)
        session.prompt_for(kept.leaf)
        kept.mean_logprobs()
        kept.branch_points()
        for form in EXPORT_FORMATS.values():
            export_text([kept], form)


def count(seed: int, number: int, chats: Chats) -> tuple[Counter[str], list[str]]:
    """What became of so many files, and which ones were no good."""
    outcomes: Counter[str] = Counter()
    bad = []
    for place in range(number):
        data = mutated(random.Random(seed + place))
        began, much = time.process_time(), _peak()
        try:
            bring_in(data, chats)
            outcome = "ok"
        except ChatappError as error:
            outcome = "words" if str(error).count("\n") == 0 else "other"
        except Exception as error:
            outcome = "other"
            bad.append(f"{seed + place}: {type(error).__name__}: {str(error)[:200]}")
        if time.process_time() - began > SLOW_SECONDS:
            outcome = "slow"
        if _peak() - much > MUCH_KIBIBYTES:
            outcome = "memory"
        if outcome in ("slow", "memory"):
            bad.append(f"{seed + place}: {outcome}")
        outcomes[outcome] += 1
    return outcomes, bad


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("seed", "number"), [(0, 60), pytest.param(1_000, 1_000, marks=pytest.mark.slow)]
)
def test_mutated_files_come_in_or_are_refused_in_words(
    seed: int, number: int, chats: Chats, record_property: Callable[[str, object], None]
) -> None:
    outcomes, bad = count(seed, number, chats)
    print(dict(outcomes))
    assert not bad, "\n".join(bad)
    assert outcomes["ok"] + outcomes["words"] == number
    assert outcomes["ok"] and outcomes["words"]
