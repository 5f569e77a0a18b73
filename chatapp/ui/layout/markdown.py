"""Markdown as blocks: what a reply says, before anyone knows how wide the screen is.

Textual's own Markdown widget makes a widget of every paragraph and list item and mounts a whole
list anew for each fragment that joins it: 0.6 s a frame for a list of a hundred items, measured.
It also drops HTML, and parses the text of table cells as markup in tooltips. Here a reply is parsed
into plain values by markdown-it, whose blocks `markdown_lines` lays out.

HTML is shown as the text it is. Links are shown with where they lead; nothing opens by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from textual.content import Content, Span

from chatapp.ui.drawing import MUTED

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    content: Content


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 1 is the highest."""

    level: int
    content: Content


@dataclass(frozen=True, slots=True)
class Code:
    """Code, fenced or indented, exactly as written."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """Quoted blocks."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[tuple[Block, ...], ...]
    start: int | None
    """The number of the first item; None for bullets."""
    tight: bool
    """Whether its items stand without blank lines between them."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; every row has as many cells as the header."""

    header: tuple[Content, ...]
    rows: tuple[tuple[Content, ...], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across."""


Block = Paragraph | Heading | Code | Quote | Items | Table | Rule


@dataclass(frozen=True, slots=True)
class Placed:
    """A block of the outermost level and the source line it begins on."""

    block: Block
    line: int


def parse(text: str) -> list[Placed]:
    """Read Markdown (CommonMark with tables and strike-through). Any text is valid Markdown."""
    tokens = iter(_parser().parse(text))
    return list(_placed(tokens))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # 40 ms; not needed before the first reply is shown

    parser = MarkdownIt("commonmark", {"html": False})
    return parser.enable(["table", "strikethrough"])


def _placed(tokens: Iterator[Token]) -> Iterator[Placed]:
    for token in tokens:
        line = token.map[0] if token.map else 0
        block = _block(token, tokens)
        if block is not None:
            yield Placed(block, line)


def _blocks_until(closing: str, tokens: Iterator[Token]) -> tuple[Block, ...]:
    """The blocks inside a container, up to its closing token."""
    blocks: list[Block] = []
    for token in tokens:
        if token.type == closing:
            break
        block = _block(token, tokens)
        if block is not None:
            blocks.append(block)
    return tuple(blocks)


def _block(token: Token, tokens: Iterator[Token]) -> Block | None:
    """The block that begins with a token; takes the tokens it needs."""
    match token.type:
        case "paragraph_open":
            return Paragraph(_inline_before("paragraph_close", tokens))
        case "heading_open":
            return Heading(int(token.tag[1:]), _inline_before("heading_close", tokens))
        case "fence" | "code_block":
            language = token.info.split()[0] if token.info.split() else ""
            return Code(token.content.rstrip("\n"), language)
        case "blockquote_open":
            return Quote(_blocks_until("blockquote_close", tokens))
        case "bullet_list_open":
            return _items("bullet_list_close", None, tokens)
        case "ordered_list_open":
            return _items("ordered_list_close", int(token.attrs.get("start", 1)), tokens)
        case "table_open":
            return _table(tokens)
        case "hr":
            return Rule()
        case "inline":
            return Paragraph(_inline(token))
        case _:
            return None


def _items(closing: str, start: int | None, tokens: Iterator[Token]) -> Items:
    items: list[tuple[Block, ...]] = []
    tight = True
    for token in tokens:
        if token.type == closing:
            break
        if token.type == "list_item_open":
            inside = _until("list_item_close", tokens, token.level)
            tight = tight and all(
                child.hidden
                for child in inside
                if child.type == "paragraph_open" and child.level == token.level + 1
            )
            items.append(_blocks_until("", iter(inside)))
    return Items(tuple(items), start, tight)


def _until(closing: str, tokens: Iterator[Token], level: int) -> list[Token]:
    """The tokens up to the closing one of the same nesting level."""
    inside: list[Token] = []
    for token in tokens:
        if token.type == closing and token.level == level:
            break
        inside.append(token)
    return inside


def _table(tokens: Iterator[Token]) -> Table:
    rows: list[list[Content]] = []
    for token in tokens:
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_inline(token))
    header, *body = rows
    return Table(tuple(header), tuple(tuple(row) for row in body))


def _inline_before(closing: str, tokens: Iterator[Token]) -> Content:
    content = Content("")
    for token in tokens:
        if token.type == closing:
            break
        if token.type == "inline":
            content = _inline(token)
    return content


_STYLES = {"em_open": "italic", "strong_open": "bold", "s_open": "strike"}
_CODE_STYLE = "$text-warning on $warning 12%"
_LINK_STYLE = "underline"


def _inline(token: Token) -> Content:
    """Running text with its emphasis, code and links."""
    texts: list[str] = []
    spans: list[Span] = []
    opened: list[tuple[int, str, str]] = []
    position = 0

    def add(text: str, style: str = "") -> None:
        nonlocal position
        texts.append(text)
        if style and text:
            spans.append(Span(position, position + len(text), style))
        position += len(text)

    def close() -> None:
        start, style, address = opened.pop()
        spans.append(Span(start, position, style))
        if address and address != "".join(texts)[start:position]:
            add(f" ({address})", MUTED)

    for child in token.children or ():
        match child.type:
            case "text" | "text_special":
                add(child.content)
            case "softbreak":
                add(" ")
            case "hardbreak":
                add("\n")
            case "code_inline":
                add(child.content, _CODE_STYLE)
            case "image":
                add(f"[image: {child.content}] ({child.attrs.get('src', '')})")
            case "link_open":
                opened.append((position, _LINK_STYLE, str(child.attrs.get("href", ""))))
            case "em_open" | "strong_open" | "s_open":
                opened.append((position, _STYLES[child.type], ""))
            case "em_close" | "strong_close" | "s_close" | "link_close":
                close()
            case _:
                add(child.content)
    return Content("".join(texts), spans)


def code_blocks(text: str) -> list[str]:
    """All code of a text, each block whole and exactly as written."""
    found: list[str] = []
    waiting: list[Block] = [placed.block for placed in parse(text)][::-1]
    while waiting:
        match waiting.pop():
            case Code(code):
                found.append(code)
            case Quote(blocks):
                waiting.extend(blocks[::-1])
            case Items(items):
                waiting.extend(block for item in items[::-1] for block in item[::-1])
            case _:
                pass
    return found
