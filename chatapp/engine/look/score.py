"""How probable a given text is to the model: a record for each of its tokens.

The first token of a text has no context, so the model says nothing about it and it has no record,
as in transformers' own loss (labels are shifted by one) and in the usual definition of perplexity.
It gets one where a beginning-of-text token stands before it: callers put `tokenizer.prefix_ids` in
front of the ids where the model expects them.

The logits come from the model reading the text again behind as much of it as a sequence of the
chat's holds already: what was read on the way to a reply is not kept for every token of the prompt.

`chatapp.chat.record.perplexity` of the records is the text's: exp(mean of −logprob).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chatapp.chat.facts import IsCancelled, Report
from chatapp.chat.inspection import PLAIN
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.look.teacher_forcing import force
from chatapp.engine.runtimes.base import KVSequence, Runtime
from chatapp.engine.sampler.chain import ChainState, StepContext, run_chain
from chatapp.engine.sampler.record import look_up_leaders, make_record


def score(
    runtime: Runtime,
    ids: Sequence[int],
    start: int,
    top_logprobs: int,
    on_progress: Report,
    cancelled: IsCancelled,
    *,
    places: Iterable[int] | None = None,
    known: KVSequence | None = None,
) -> Iterator[TokenRecord]:
    """Yield a record for each token of a text that has a context.

    The records come piece by piece while the text is read; a record's `index` is the token's place
    in `ids`. When `cancelled` becomes true it ends early. Raises EngineError: the text is longer
    than the model's context, or the model failed.

    Args:
        start: the first token to score; what is before it is context only. 0 is the same as 1.
        places: which tokens are wanted, from `start` on; None is all of them.
        known: a sequence that has read the start of the text, maybe; it is left as it is.
    """
    start = max(start, 1)
    all_places = range(start, len(ids))
    wanted = all_places if places is None else sorted(set(places) & set(all_places))
    if not wanted:
        return
    text = ReplyText(runtime.tokenizer, end_ids=(), reply_ids=ids[: wanted[0]])
    end_ids = np.array(runtime.facts.end_ids, dtype=np.int64)
    context = StepContext(
        ids=np.array(ids, dtype=np.int64), prompt_length=len(ids), end_ids=end_ids
    )
    state = ChainState(0)  # nothing is drawn
    asked, read = set(wanted), ids[: wanted[-1] + 1]
    for piece in force(runtime, read, wanted[0], on_progress, cancelled, known):
        for index, logits in enumerate(piece.logits, piece.start):
            if cancelled():
                return
            last = FinishReason.LENGTH if index == len(ids) - 1 else None
            printed = text.push(ids[index], last).text
            if index not in asked:  # it only goes into the text that is told
                continue
            outcome = run_chain(logits, PLAIN, context, state)
            yield make_record(
                look_up_leaders(outcome, top_logprobs, ids[index]),
                ids[index],
                index=index,
                end_ids=end_ids,
                token_bytes=runtime.tokenizer.token_bytes,
                text=printed,
                draw=None,
            )
