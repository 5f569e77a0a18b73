"""Text that goes on where a reply was cut: joined, it is what an uncut reply says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatapp.chat.conversation import Reply
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.runtimes.folder_tokenizer import FolderTokenizer
from chatapp.session.growing import kept_to_continue
from tests.tiny_models import save_tokenizer

STOP = ("\nUser:",)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, chat=False)
    return FolderTokenizer.from_folder(folder)


def record(token_id: int, text: str, tokenizer: FolderTokenizer) -> TokenRecord:
    return TokenRecord(
        index=0,
        id=token_id,
        token=tokenizer.piece(token_id).token,
        bytes=tokenizer.token_bytes(token_id),
        text=text,
        logprob=0.0,
        tempered_prob=1.0,
        prob=1.0,
        rank=1,
        entropy_bits=0.0,
        final_entropy_bits=0.0,
        p_end=0.0,
        temperature=0.0,
        candidates=(),
        other_count=0,
        other_model_prob=0.0,
        other_tempered_prob=0.0,
        other_prob=0.0,
    )


def write(
    tokenizer: FolderTokenizer,
    ids: list[int],
    *,
    kept: tuple[TokenRecord, ...] = (),
    ending: FinishReason | None = None,
) -> list[TokenRecord]:
    printed = "".join(each.text for each in kept)
    text = ReplyText(tokenizer, (), STOP, [each.id for each in kept], printed)
    made = []
    for number, token_id in enumerate(ids):
        last = ending if number == len(ids) - 1 else None
        made.append(record(token_id, text.push(token_id, last).text, tokenizer))
    return made


@pytest.mark.parametrize("text", ["ba\nb", "a é b", "x\nUse this", "👩‍👩‍👧 日本", "\n\nUser"])
@pytest.mark.parametrize("ending", [FinishReason.LENGTH, FinishReason.CANCELLED])
def test_a_continued_reply_says_what_an_uncut_one_says(
    tokenizer: FolderTokenizer, text: str, ending: FinishReason
) -> None:
    ids = tokenizer.encode_text(text)
    for cut in range(1, len(ids)):
        # At a limit everything held back comes out; a stopped reply keeps it back.
        limit = ending if ending is FinishReason.LENGTH else None
        first = write(tokenizer, ids[:cut], ending=limit)
        shown = "".join(each.text for each in first)
        reply = Reply(model="m", seed=0, records=tuple(first), finish_reason=ending)
        kept, _ = kept_to_continue(reply, shown)
        rest = write(tokenizer, ids[cut:], kept=kept, ending=FinishReason.LENGTH)
        assert "".join(each.text for each in (*kept, *rest)) == text


def test_a_reply_that_ended_by_a_stop_sequence_goes_on_before_it(
    tokenizer: FolderTokenizer,
) -> None:
    ids = tokenizer.encode_text("Fine.\nUser:")
    records = write(tokenizer, ids)
    shown = "".join(each.text for each in records)
    assert shown == "Fine."
    reply = Reply(
        model="m", seed=0, records=tuple(records), finish_reason=FinishReason.STOP_SEQUENCE
    )
    kept, rest = kept_to_continue(reply, shown)
    assert b"".join(each.bytes for each in kept) == b"Fine."
    assert rest == ""


def test_what_is_shown_of_a_token_that_a_stop_sequence_cuts_is_not_lost(
    tokenizer: FolderTokenizer,
) -> None:
    before = [record(0, "ab", tokenizer), record(0, "é", tokenizer), record(0, "c", tokenizer)]
    spelt = [b"ab", b"\xc3", b"\xa9c\nUs", b"er:"]
    records = [
        replace(one, bytes=data) for one, data in zip((*before, before[0]), spelt, strict=True)
    ]
    reply = Reply(
        model="m", seed=0, records=tuple(records), finish_reason=FinishReason.STOP_SEQUENCE
    )
    kept, rest = kept_to_continue(reply, "abéc")
    assert (len(kept), rest) == (1, "éc")  # a token that ends inside a character is not kept
