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
from chatapp.chat.prompt import Prompt, RenderedPrompt, Turn
from chatapp.chat.thinking import thinking_of
from chatapp.engine.prompt.layout import Layout
from chatapp.engine.prompt.template import FormatFailed, FormatRefused, compile_template, telling
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
    own, chosen, failed = tokenizer.chat_template, prompt.format, ""
    if own is None and chosen.name == OWN:
        raise EngineError(
            "the model has no chat template of its own; use the format transcript or chatml"
        )
    if own is None and chosen.name == "auto" and not chosen.source:
        raise EngineError("the model has no chat template, and auto has no other format to use")
    with telling(prompt.moment, prompt.think):
        if own is not None and chosen.name in ("auto", OWN):
            try:
                return _render(tokenizer, prompt, OWN, own)
            except FormatFailed as error:
                failed = f"the model's own chat template failed: {error}"
                if chosen.name == OWN or not chosen.source:
                    hint = "choose another format with /set format NAME or --format"
                    raise EngineError(f"{failed}; {hint}") from None
        name = "transcript" if chosen.name == "auto" else chosen.name
        try:
            made = _render(tokenizer, prompt, name, chosen.source)
        except FormatFailed as error:
            raise EngineError(f"the format {name} failed: {error}") from None
    if failed:
        note = f"{failed}; the transcript format is used instead"
        made = replace(made, rendered=replace(made.rendered, note=note))
    return made


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


def _render(tokenizer: ModelTokenizer, prompt: Prompt, name: str, source: str) -> PromptIds:
    """Try the conversation as it is, then bent until the format takes it."""
    template = compile_template(source)
    turns, open_turn = prompt.turns, None
    if prompt.continue_reply:
        if not turns or turns[-1].role != "assistant":
            raise EngineError(
                "there is no reply to continue: the last message is not the assistant's"
            )
        turns, open_turn = turns[:-1], turns[-1]
    refusal: FormatRefused | None = None
    for bent, note in _bends(prompt.system, turns):
        try:
            layout = Layout(tokenizer, template, bent)
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
        tokens = tokenizer.pieces((*ids, *reply))
        text = b"".join(token.bytes for token in tokens).decode("utf-8", "replace")
        rendered = RenderedPrompt(name, text, tokens, stop, note, replace(marks, begun=begun))
        return PromptIds((*ids, *reply), reply, rendered)
    assert refusal is not None  # there is always one bend to try
    raise refusal


def _bends(system: str, turns: tuple[Turn, ...]) -> Iterator[tuple[tuple[Turn, ...], str]]:
    """The conversation as it is, then bent more and more; each with words for what was done to it.

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
            yield (Turn("system", system), *body), note
            yield _merged(system, body), f"{moved}; {note}" if note else moved
        else:
            yield body, note


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
