"""How probable a given text is to the model: a record for each of its tokens.

The first token of a text has no context, so the model says nothing about it and it has no record,
as in transformers' own loss (labels are shifted by one) and in the usual definition of perplexity.
It gets one where a beginning-of-text token stands before it: callers put `tokenizer.prefix_ids` in
front of the ids where the model expects them.

`chatapp.chat.record.perplexity` of the records is the text's: exp(mean of −logprob).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from chatapp.chat.facts import Progress
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.loader import LoadedModel
from chatapp.engine.reply_text import ReplyText
from chatapp.engine.sampler.chain import ChainState, StepContext, run_chain
from chatapp.engine.sampler.record import make_record
from chatapp.engine.teacher_forcing import force

PLAIN = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
"""Every stage off: tempered and final probabilities are the model's."""


def score(
    loaded: LoadedModel,
    ids: Sequence[int],
    start: int,
    top_logprobs: int,
    on_progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Iterator[TokenRecord]:
    """Yield a record for each token of a text that has a context.

    The records come piece by piece while the text is read; a record's `index` is the token's place
    in `ids`. The chat's KV cache is not touched. When `cancelled` becomes true it ends early.

    Args:
        loaded: the model.
        ids: the text, with whatever stands before it.
        start: the first token to score; what is before it is context only. 0 is the same as 1.
        top_logprobs: how many candidates each record lists.
        on_progress: told how much has been read.
        cancelled: asked between pieces and between records.

    Raises:
        EngineError: the text is longer than the model's context, or the model failed.
    """
    start = max(start, 1)
    text = ReplyText(loaded.tokenizer, end_ids=(), reply_ids=ids[:start])
    end_ids = torch.tensor(loaded.facts.end_ids, dtype=torch.int64)
    context = StepContext(ids=torch.tensor(list(ids)), prompt_length=len(ids), end_ids=end_ids)
    state = ChainState(0)  # nothing is drawn
    for piece in force(loaded, ids, start, on_progress, cancelled):
        for index, logits in enumerate(piece.logits, piece.start):
            if cancelled():
                return
            last = FinishReason.LENGTH if index == len(ids) - 1 else None
            yield make_record(
                run_chain(logits, PLAIN, context, state),
                ids[index],
                index=index,
                top_logprobs=top_logprobs,
                end_ids=end_ids,
                token_bytes=loaded.tokenizer.token_bytes,
                text=text.push(ids[index], last).text,
                draw=None,
            )
