"""Turns, a system text and a format → the exact ids a model reads.

Three promises are kept here:
1. For ordinary text the ids are those of transformers' `apply_chat_template`.
2. Control tokens are the format's own. Text that spells one (or half of one, with the other half in
   the next message) is encoded as ordinary text.
3. A reply that this model wrote is read back as the very ids it wrote, directly behind the prompt
   that they answered; its text is never tokenized again.

This module picks the format and bends the conversation where the format insists; how text becomes
ids is in `chatapp.engine.prompt.layout`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from chatapp.chat.errors import EngineError
from chatapp.chat.prompt import Prompt, PromptFormat, RenderedPrompt, Turn
from chatapp.chat.thinking import thinking_of
from chatapp.engine.prompt.layout import Layout
from chatapp.engine.prompt.template import (
    FormatFailed,
    FormatRefused,
    compile_template,
    telling,
)
from chatapp.engine.runtimes.tokenizer import ModelTokenizer

OWN = "model"
"""The name under which a model's own chat template goes."""


@dataclass(frozen=True, slots=True)
class PromptIds:
    """What the model reads."""

    ids: tuple[int, ...]
    """The whole prompt; empty when there is nothing to read."""
    reply_ids: tuple[int, ...]
    """The start of the reply that is to be continued: the last of `ids`."""
    rendered: RenderedPrompt
    """The same for a user's eyes."""


def render_prompt(tokenizer: ModelTokenizer, prompt: Prompt) -> PromptIds:
    """Write a prompt in its format and encode it.

    Raises:
        EngineError: the format is not there, cannot be run, or refuses this conversation.
    """
    with telling(prompt.moment, prompt.think):
        return _render_prompt(tokenizer, prompt)


def _render_prompt(tokenizer: ModelTokenizer, prompt: Prompt) -> PromptIds:
    own = tokenizer.chat_template
    if _uses_own(tokenizer, prompt.format):
        assert own is not None  # else it would not be used
        try:
            return _render(tokenizer, prompt, OWN, own)
        except FormatFailed as error:
            reason = f"the model's own chat template failed: {error}"
            if prompt.format.name == OWN or not prompt.format.source:
                hint = "choose another format with /set format NAME or --format"
                raise EngineError(f"{reason}; {hint}") from None
            note = f"{reason}; the transcript format is used instead"
            made = _render_source(tokenizer, prompt)
            return replace(made, rendered=replace(made.rendered, note=note))
    return _render_source(tokenizer, prompt)


def turn_end(tokenizer: ModelTokenizer) -> int | None:
    """The special token that the model's own format writes behind an assistant's turn.

    A model that was tuned to it ends its turns so, whatever its configuration names as the end:
    fine-tunes of base models often keep the base's. None where there is no such token.
    """
    if tokenizer.chat_template is None:
        return None
    said = "\ufdd0"  # a noncharacter, which no format looks at
    asked, answered = {"role": "user", "content": "x"}, {"role": "assistant", "content": said}
    try:
        text = (
            compile_template(tokenizer.chat_template)
            .render([asked, answered], tokenizer.special_tokens, add_generation_prompt=False)
            .text
        )
    except FormatFailed:
        return None
    behind = text.rpartition(said)[2].lstrip()
    found = next(iter(tokenizer.pattern.find(behind)), "")
    if not found or not behind.startswith(found):
        return None
    token_id = tokenizer.control_id(found)
    return token_id if token_id in tokenizer.special_ids else None


def _uses_own(tokenizer: ModelTokenizer, chosen: PromptFormat) -> bool:
    if chosen.name == OWN and tokenizer.chat_template is None:
        raise EngineError(
            "the model has no chat template of its own; use the format transcript or chatml"
        )
    if chosen.name == "auto" and tokenizer.chat_template is None and not chosen.source:
        raise EngineError("the model has no chat template, and auto has no other format to use")
    return chosen.name in ("auto", OWN) and tokenizer.chat_template is not None


def _render_source(tokenizer: ModelTokenizer, prompt: Prompt) -> PromptIds:
    name = "transcript" if prompt.format.name == "auto" else prompt.format.name
    try:
        return _render(tokenizer, prompt, name, prompt.format.source)
    except FormatFailed as error:
        raise EngineError(f"the format {name} failed: {error}") from None


def _render(tokenizer: ModelTokenizer, prompt: Prompt, name: str, source: str) -> PromptIds:
    """Try the conversation as it is, then bent until the format takes it."""
    template = compile_template(source)
    turns, open_turn = _open_turn(prompt)
    refusal: FormatRefused | None = None
    for bent in _bends(prompt.system, turns):
        try:
            layout = Layout(tokenizer, template, bent.turns)
        except FormatRefused as error:
            refusal = refusal or error
            continue
        ids = tuple(layout.ids())
        reply = layout.ids_of_open_reply(open_turn) if open_turn is not None else ()
        prefix = tokenizer.prefix_ids
        # A model's own template writes its BOS token itself, and ends turns by end tokens.
        if (name != OWN or tokenizer.prefixes_every_prompt) and ids[: len(prefix)] != prefix:
            ids = (*prefix, *ids)
        stop = () if name == OWN else layout.plain.stop
        marks = thinking_of(source)
        begun = layout.plain.text.rstrip().endswith(marks.open)
        made = _finished(tokenizer, (*ids, *reply), reply, name, stop, bent.note)
        thinking = replace(marks, begun=begun)
        return replace(made, rendered=replace(made.rendered, thinking=thinking))
    assert refusal is not None  # there is always one bend to try
    raise refusal


def _finished(
    tokenizer: ModelTokenizer,
    ids: tuple[int, ...],
    reply_ids: tuple[int, ...],
    name: str,
    stop: tuple[str, ...],
    note: str,
) -> PromptIds:
    """The result, whose text is what its ids say and nothing else."""
    tokens = tokenizer.pieces(ids)
    text = b"".join(token.bytes for token in tokens).decode("utf-8", "replace")
    return PromptIds(ids, reply_ids, RenderedPrompt(name, text, tokens, stop, note))


def _open_turn(prompt: Prompt) -> tuple[tuple[Turn, ...], Turn | None]:
    """The turns that are complete, and the reply that is to be continued."""
    if not prompt.continue_reply:
        return prompt.turns, None
    if not prompt.turns or prompt.turns[-1].role != "assistant":
        raise EngineError("there is no reply to continue: the last message is not the assistant's")
    return prompt.turns[:-1], prompt.turns[-1]


@dataclass(frozen=True, slots=True)
class _Bent:
    """Turns as a format may take them, and what was done to them."""

    turns: tuple[Turn, ...]
    note: str = ""


def _bends(system: str, turns: tuple[Turn, ...]) -> Iterator[_Bent]:
    """The conversation as it is, then bent more and more.

    Some models' templates refuse a system turn (Gemma), one that the assistant begins, or two
    messages of one role in a row.
    """
    bodies, notes = [turns], [""]
    opening = next((i for i, turn in enumerate(turns) if turn.role == "user"), len(turns))
    if opening:
        bodies.append(turns[opening:])
        notes.append("the format lets no assistant begin; its opening words are left out")
    if (joined := _joined(turns[opening:])) != turns[opening:]:
        bodies.append(joined)
        what = "the format wants turns to alternate; messages without a reply between are joined"
        notes.append("; ".join(filter(None, (notes[-1], what))))
    moved = "the format takes no system text; it stands before your first message"
    for body, note in zip(bodies, notes, strict=True):
        if system:
            yield _Bent((Turn("system", system), *body), note)
            yield _Bent(_merged(system, body), f"{moved}; {note}" if note else moved)
        else:
            yield _Bent(body, note)


def _joined(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Neighbouring turns of one role made into one, as text."""
    made: list[Turn] = []
    for turn in turns:
        if made and made[-1].role == turn.role:
            made[-1] = Turn(turn.role, f"{made[-1].text}\n\n{turn.text}")
        else:
            made.append(turn)
    return tuple(made)


def _merged(system: str, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The system text put before the first message of the user."""
    for index, turn in enumerate(turns):
        if turn.role == "user":
            first = Turn("user", f"{system}\n\n{turn.text}")
            return (*turns[:index], first, *turns[index + 1 :])
    return (Turn("user", system), *turns)
