"""One conversation in one format, from text to ids.

Two devices keep text from becoming control tokens, and replies as they were written; both are made
of characters that occur nowhere in the conversation:
- A stand-in replaces the first character of whatever spells a control token, or could become one
  together with its neighbours. The format runs on that, so that every control token in its
  output is its own; the characters are put back afterwards and encoded as ordinary text.
- A mark takes the place of a reply whose ids are known, and is replaced by those ids. It is used
  only where the format would have written the reply's text unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from chatapp.chat.errors import EngineError
from chatapp.chat.prompt import Turn
from chatapp.engine.prompt.control import ControlToken
from chatapp.engine.prompt.template import ChatTemplate, RenderedText
from chatapp.engine.runtimes.tokenizer import ModelTokenizer, Segment


@dataclass(frozen=True, slots=True)
class _Mark:
    """What stands in a reply's place while the format runs."""

    character: str
    lead: str
    """The whitespace the reply's text begins with: some formats look at it."""
    core: str
    """The text without the whitespace around it."""
    trail: str
    ids: tuple[int, ...]

    @property
    def content(self) -> str:
        return self.lead + self.character


class Layout:
    """Turns as a format writes them."""

    def __init__(
        self, tokenizer: ModelTokenizer, template: ChatTemplate, turns: Sequence[Turn]
    ) -> None:
        """Render them.

        Raises:
            FormatRefused: the format does not take these turns.
            FormatFailed: it cannot be run.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._turns = turns
        self._texts = [turn.text for turn in turns]
        self.plain = self._render(self._texts)
        """The text and the stop sequences of the format, nothing replaced."""
        self._unused = unused_characters("".join([*self._texts, self.plain.text]))
        self._stand_ins: dict[str, str] = {}

    def ids(self) -> list[int]:
        """The prompt up to where the next reply begins."""
        contents = [self._guarded(text) for text in self._texts]
        if contents == self._texts and not any(turn.ids for turn in self._turns):
            ids = self._tokenizer.encode_rendered(self.plain.text)
            if self._holds_only_own(ids):
                return ids
        contents, rendered = self._protected(contents)
        return self._tokenizer.encode_segments(self._segments(contents, rendered))

    def ids_of_open_reply(self, turn: Turn) -> tuple[int, ...]:
        """The start of the next reply, to be read right behind the prompt."""
        if turn.ids or not turn.text:
            return turn.ids or ()
        before = self._tokenizer.pattern.split(self.plain.text)
        last: list[Segment] = list(before[-1:])
        text = self._after_prompt(turn.text)
        known = len(self._tokenizer.encode_segments(last))
        return tuple(self._tokenizer.encode_segments([*last, text])[known:])

    def _holds_only_own(self, ids: Sequence[int]) -> bool:
        """Whether the control tokens are those that the format spells.

        Others come out where a tokenizer normalizes text before it looks for them.
        """
        tokenizer = self._tokenizer
        spelt = tokenizer.pattern.find(self.plain.text)
        own = [token_id for text in spelt if (token_id := tokenizer.control_id(text)) is not None]
        return tokenizer.controls_in(ids) == tokenizer.controls_in(own)

    def _render(self, contents: Sequence[str], *, is_open: bool = True) -> RenderedText:
        """The format's text for the first turns, as many as there are contents.

        One content more than turns is a reply to them. `is_open`: the next reply's turn is opened.
        """
        roles = [*(turn.role for turn in self._turns), "assistant"]
        messages = [
            {"role": role, "content": content}
            for role, content in zip(roles, contents, strict=False)
        ]
        variables = self._tokenizer.special_tokens
        return self._template.render(messages, variables, add_generation_prompt=is_open)

    def _guarded(self, text: str) -> str:
        """A text that can neither spell nor complete a control token."""
        positions = self._tokenizer.pattern.risky_positions(text)
        if not positions:
            return text
        characters = list(text)
        for position in positions:
            original = characters[position]
            if original not in self._stand_ins:
                self._stand_ins[original] = next(self._unused)
            characters[position] = self._stand_ins[original]
        return "".join(characters)

    @cached_property
    def _restoring(self) -> dict[int, str]:
        return {ord(stand_in): original for original, stand_in in self._stand_ins.items()}

    def _restored(self, text: str) -> str:
        return text.translate(self._restoring)

    def _protected(self, guarded: list[str]) -> tuple[list[str], str]:
        """Contents and the format's text for them, in which every control token is its own."""
        rendered = self._render(guarded).text
        if self._restored(rendered) == self.plain.text:
            return guarded, rendered
        # The format reads what it is given: it cuts a reply's reasoning off at </think>, say. Show
        # it the replies as they are, unless any control token of theirs would be left over.
        trusting = [
            turn.text if turn.role == "assistant" else guard
            for turn, guard in zip(self._turns, guarded, strict=True)
        ]
        other = self._render(trusting).text
        find = self._tokenizer.pattern.find
        if self._restored(other) == self.plain.text and find(other) == find(rendered):
            return trusting, other
        return guarded, rendered

    def _segments(self, contents: list[str], rendered: str) -> Iterator[Segment]:
        """The prompt as control tokens, ordinary text and the exact ids of replies."""
        marks = {
            index: _mark(next(self._unused), contents[index], turn.ids)
            for index, turn in enumerate(self._turns)
            if turn.ids and turn.role == "assistant"
        }
        marks, rendered = self._usable(marks, contents, rendered)
        gaps: dict[str, str] = {}  # by the whitespace a reply begins with
        at = 0
        for index, mark in marks.items():
            found = rendered.index(mark.character)
            if mark.lead not in gaps:
                prompt = self._render(self._with_marks(contents[:index], marks))
                gap = _gap(prompt.text, rendered[:found])
                gaps[mark.lead] = mark.lead if gap is None else gap
            yield from self._text_segments(rendered[at:found].removesuffix(gaps[mark.lead]))
            yield mark.ids
            at = found + 1
        yield from self._text_segments(rendered[at:])

    def _text_segments(self, text: str) -> Iterator[Segment]:
        for part in self._tokenizer.pattern.split(text):
            yield part if isinstance(part, ControlToken) else self._restored(part)

    def _with_marks(self, contents: Sequence[str], marks: dict[int, _Mark]) -> list[str]:
        return [
            marks[index].content if index in marks else content
            for index, content in enumerate(contents)
        ]

    def _usable(
        self, marks: dict[int, _Mark], contents: list[str], rendered: str
    ) -> tuple[dict[int, _Mark], str]:
        """Those marks whose text the format writes unchanged, and its text with them."""
        while marks:
            marked = self._render(self._with_marks(contents, marks)).text
            kept = _unchanged(list(marks.values()), marked, rendered)
            if len(kept) == len(marks):
                return marks, marked
            marks = {index: mark for index, mark in marks.items() if mark in kept}
        return {}, rendered

    def _after_prompt(self, text: str) -> str:
        """A reply's text with the whitespace that the format puts before it."""
        mark = _mark(next(self._unused), text, ())
        closed = self._render([*self._texts, mark.content], is_open=False).text
        gap = _gap(self.plain.text, closed[: max(closed.find(mark.character), 0)])
        return text if gap is None else gap + mark.core + mark.trail


def unused_characters(text: str) -> Iterator[str]:
    """Characters without a meaning that do not occur in a text: noncharacters, then private ones.

    Raises:
        EngineError: they all occur (the text is longer than 131,000 characters).
    """
    used = set(text)
    for code in chain(range(0xFDD0, 0xFDF0), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)):
        if chr(code) not in used:
            yield chr(code)
    raise EngineError("the conversation holds every private character there is; shorten it")


def _mark(character: str, text: str, ids: tuple[int, ...]) -> _Mark:
    """A mark for a reply, in the whitespace of its text."""
    core = text.strip()
    lead = text[: text.find(core)] if core else text
    return _Mark(character, lead, core, text[len(lead) + len(core) :], ids)


def _unchanged(marks: Sequence[_Mark], marked: str, rendered: str) -> list[_Mark]:
    """The marks whose place in `marked` holds, in `rendered`, the text they stand for.

    All of them are returned only when putting their texts in makes the one the other.
    """
    found = [marked.find(mark.character) for mark in marks]
    if -1 in found or found != sorted(found) or any(marked.count(m.character) > 1 for m in marks):
        return []
    ends = [*found[1:], len(marked)]
    if not rendered.startswith(marked[: found[0]]):
        return []
    position = found[0]
    kept = []
    for mark, start, end in zip(marks, found, ends, strict=True):
        after = marked[start + 1 : end]
        # A format that trims a reply is no reason to read it otherwise than it was written.
        ways = (mark.core + mark.trail + after, mark.core + after)
        way = next((way for way in ways if rendered.startswith(way, position)), None)
        if way is not None:
            kept.append(mark)
            position += len(way)
        elif (next_one := rendered.find(after, position)) >= 0:
            position = next_one + len(after)
        else:
            return []
    return kept if position == len(rendered) or len(kept) < len(marks) else kept[:-1]


def _gap(prompt: str, whole: str) -> str | None:
    """The whitespace by which `whole` goes on beyond a prompt; None where it differs otherwise."""
    rest = whole.removeprefix(prompt)
    return rest if whole.startswith(prompt) and not rest.strip() else None
