"""How probable a given text is to the model: a record for each of its tokens.

The first token of a text has no context, so the model says nothing about it and it has no record,
as in transformers' own loss (labels are shifted by one) and in the usual definition of perplexity.
It gets one where a beginning-of-text token stands before it: callers put `tokenizer.prefix_ids` in
front of the ids where the model expects them.

The logits come from the model reading the text, or, where the chat's cache holds the text already,
from the final hidden states beside it: then the output head alone is run.

`chatapp.chat.record.perplexity` of the records is the text's: exp(mean of −logprob).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.scoring import PLAIN
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.look.teacher_forcing import force, piece_rows
from chatapp.engine.runtimes.loader import LoadedModel
from chatapp.engine.runtimes.states import FinalStates
from chatapp.engine.sampler.chain import ChainState, StepContext, run_chain
from chatapp.engine.sampler.record import look_up_leaders, make_record

Rows = Iterator[tuple[int, torch.Tensor]]
"""Places of tokens, rising, and the logits before each: (V,) float32, on the CPU."""


def score(
    loaded: LoadedModel,
    ids: Sequence[int],
    start: int,
    top_logprobs: int,
    on_progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    *,
    places: Iterable[int] | None = None,
    states: FinalStates | None = None,
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
        places: which tokens are wanted, from `start` on; None is all of them.
        states: what the layers made of every token but the last, where that is known; the model is
            not run then, and `loaded.head` has to be there.

    Raises:
        EngineError: the text is longer than the model's context, or the model failed.
    """
    start = max(start, 1)
    all_places = range(start, len(ids))
    wanted = all_places if places is None else sorted(set(places) & set(all_places))
    if states is None:
        rows = _read(loaded, ids, wanted, on_progress, cancelled)
    else:
        rows = _look_up(loaded, ids, wanted, states, on_progress, cancelled)
    yield from _records(loaded, ids, start, rows, top_logprobs, cancelled)


def _records(
    loaded: LoadedModel,
    ids: Sequence[int],
    start: int,
    rows: Rows,
    top_logprobs: int,
    cancelled: Callable[[], bool],
) -> Iterator[TokenRecord]:
    """A record for each row; the tokens between them only go into the text that is told."""
    text = ReplyText(loaded.tokenizer, end_ids=(), reply_ids=ids[:start])
    end_ids = torch.tensor(loaded.facts.end_ids, dtype=torch.int64)
    context = StepContext(ids=torch.tensor(list(ids)), prompt_length=len(ids), end_ids=end_ids)
    state = ChainState(0)  # nothing is drawn
    told = start
    for index, logits in rows:
        if cancelled():
            return
        for token_id in ids[told:index]:
            text.push(token_id, None)
        told = index + 1
        last = FinishReason.LENGTH if index == len(ids) - 1 else None
        outcome = run_chain(logits, PLAIN, context, state)
        yield make_record(
            look_up_leaders(outcome, top_logprobs, ids[index]),
            ids[index],
            index=index,
            end_ids=end_ids,
            token_bytes=loaded.tokenizer.token_bytes,
            text=text.push(ids[index], last).text,
            draw=None,
        )


def _read(
    loaded: LoadedModel,
    ids: Sequence[int],
    places: Sequence[int],
    on_progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Rows:
    """The logits from the model reading the text up to the last place."""
    if not places:
        return
    wanted = set(places)
    text = ids[: places[-1] + 1]
    for piece in force(loaded, text, places[0], on_progress, cancelled):
        for place, logits in enumerate(piece.logits, piece.start):
            if place in wanted:
                yield place, logits


def _look_up(
    loaded: LoadedModel,
    ids: Sequence[int],
    places: Sequence[int],
    states: FinalStates,
    on_progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> Rows:
    """The logits from the final hidden states of the tokens before the places."""
    head = loaded.head
    if head is None:
        raise ValueError("there is no output head to make logits of the states")
    size = piece_rows(loaded.facts.vocab_size)
    for first in range(0, len(places), size):
        if cancelled():
            return
        piece = places[first : first + size]
        before = [place - 1 for place in piece]
        try:
            logits = head.logits([ids[place] for place in before], states[before])
        except (RuntimeError, MemoryError) as error:
            words = str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
            raise EngineError(f"the model failed while it scored the text: {words}") from error
        on_progress(Progress("scoring the text", first + len(piece), len(places), "tokens"))
        yield from zip(piece, logits.float().cpu(), strict=True)
