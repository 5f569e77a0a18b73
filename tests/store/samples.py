"""Conversations to test with: realistic ones from a seed, and any at all from hypothesis."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import replace
from functools import lru_cache

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.record import Candidate, FinishReason, Removal, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams

WORDS = tuple(a + b for a in ("ba", "the", "ki", "lo", "mu", "ra") for b in ("n", "st", "ll", "ve"))


def single(value: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def make_record(rng: random.Random, index: int, candidates: int = 20) -> TokenRecord:
    """One step as an engine with a vocabulary of 49,152 and the default sampler tells it."""
    scores = sorted((rng.gauss(0, 4) for _ in range(candidates)), reverse=True)
    peak = math.log(sum(map(math.exp, scores))) + rng.random()
    logprobs = [single(score - peak) for score in scores]
    tempered = [single(math.exp(logprob / 0.7) * 0.9) for logprob in logprobs]
    kept = max(1, sum(p > 0.05 * tempered[0] for p in tempered))
    total = sum(tempered[:kept])
    ids = rng.sample(range(3000), candidates)
    weighed = []
    for rank, id_ in enumerate(ids):
        token = " " + WORDS[id_ % len(WORDS)] + str(id_ // len(WORDS))
        removal = None
        if rank >= kept:
            needed, had = single(0.05 * tempered[0]), tempered[rank]
            removal = Removal("min_p", 0.05, needed, had)
        weighed.append(
            Candidate(
                id=id_,
                token=token,
                bytes=token.encode(),
                logprob=logprobs[rank],
                tempered_prob=tempered[rank],
                prob=0.0 if removal else single(tempered[rank] / total),
                rank=rank + 1,
                removed_by=removal,
            )
        )
    chosen = weighed[rng.randrange(kept)]
    return TokenRecord(
        index=index,
        id=chosen.id,
        token=chosen.token,
        bytes=chosen.bytes,
        text=chosen.token,
        logprob=chosen.logprob,
        tempered_prob=chosen.tempered_prob,
        prob=chosen.prob,
        rank=chosen.rank,
        entropy_bits=single(rng.random() * 5),
        final_entropy_bits=single(rng.random() * 2),
        p_end=single(rng.random() * 1e-3),
        temperature=0.7,
        candidates=tuple(weighed),
        other_count=49152 - candidates,
        other_model_prob=single(rng.random() * 0.1),
        other_tempered_prob=single(rng.random() * 0.05),
        other_prob=0.0,
        draw=rng.random(),
    )


@lru_cache(maxsize=256)
def make_reply(
    tokens: int,
    *,
    seed: int = 0,
    candidates: int = 20,
    finished: bool = True,
    prompt: int = 100,
) -> Reply:
    """A reply of so many tokens; the beginning of a longer one of the same seed is the same."""
    rng = random.Random(seed)
    prompt_ids = tuple(rng.sample(range(49152), prompt))
    return Reply(
        model="SmolLM2-135M-Instruct",
        model_sha256="ab" * 32,
        runtime="llama.cpp",
        seed=seed,
        prompt_ids=prompt_ids,
        cached_tokens=7,
        records=tuple(make_record(rng, index, candidates) for index in range(tokens)),
        sampling=(SamplingSpan(0, SamplingParams()),),
        finish_reason=FinishReason.LENGTH if finished else None,
        seconds=tokens / 50 if finished else 0.0,
        time_to_first_token=0.125,
    )


def reply_text(reply: Reply) -> str:
    """What the reply says."""
    return "".join(record.text for record in reply.records)


def make_message(
    message_id: str,
    parent: str | None,
    text: str = "hello",
    *,
    reply: Reply | None = None,
    created: float = 1000.0,
) -> Message:
    """A message: the user's, or a model's where it has a reply."""
    return Message(
        id=message_id,
        parent=parent,
        role="assistant" if reply else "user",
        text=reply_text(reply) if reply else text,
        created=created,
        reply=reply,
    )


def news(message: Message, since: int) -> Message:
    """What a session appends of a reply that has grown: only the records from number `since` on."""
    assert message.reply is not None
    return replace(message, reply=replace(message.reply, records=message.reply.records[since:]))


def make_conversation(conversation_id: str = "c1", turns: int = 2, tokens: int = 5) -> Conversation:
    """A conversation of so many questions, each with a reply."""
    conversation = Conversation(
        id=conversation_id, created=1000.0, title=f"Title of {conversation_id}", model="SmolLM2"
    )
    parent = None
    for turn in range(turns):
        user = make_message(f"{conversation_id}-u{turn}", parent, f"question number {turn}")
        reply = make_reply(tokens, seed=turn)
        answer = make_message(f"{conversation_id}-a{turn}", user.id, reply=reply)
        conversation = conversation.with_message(user).with_message(answer)
        parent = answer.id
    return conversation
