"""Markdown as rows of a width.

Textual's own Markdown widget makes a widget of every paragraph and list item and mounts a whole
list anew for each fragment that joins it: 0.6 s a frame for a list of a hundred items, measured.
It also drops HTML, and parses the text of table cells as markup in tooltips. Here a reply is parsed
by markdown-it (CommonMark with tables and strike-through), whose tree is laid out as lines.

HTML is shown as the text it is. Links are shown with where they lead; nothing opens by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from textual.content import Content, Span

from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import EMPTY, Line, indent, wrap

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode

_BULLETS = ("•", "◦", "▪")
_STYLES = {"em_open": "italic", "strong_open": "bold", "s_open": "strike"}
_CODE_STYLE = "$text-warning on $warning 12%"
_CODE_BACKGROUND = "on $foreground 6%"
_LINK_STYLE = "underline"
_LEAST_COLUMN = 4
_LONGEST_HIGHLIGHTED = 50_000
"""Characters of code; beyond it colours would cost more than they give."""


class GrowingMarkdown:
    """A Markdown text and its rows; each fragment costs what it touches, not what stands above it.

    Only the last block of a text can still change when more comes (a paragraph may become a
    heading, a list gain items), so only it is parsed anew. What a later line can change further up
    (the address of a reference link) is put right when the reply has ended and the whole is parsed
    once more.
    """

    def __init__(self, text: str = "") -> None:
        """Begin with a text that was sanitised."""
        self._blocks: list[SyntaxTreeNode] = []
        self._finished = 0
        """How many of them change no more."""
        self._rows: list[Line] = []
        """Of the first ones, as far as they are finished and laid out for the width."""
        self._laid_out = 0
        self._tail = ""
        """The source from the beginning of the last block on."""
        self._width = 0
        self._lines: list[Line] | None = None
        self.append(text)

    def append(self, text: str) -> None:
        """Add a sanitised fragment."""
        if not text:
            return
        self._tail += text
        blocks = _parse(self._tail).children
        self._lines = None
        self._blocks[self._finished :] = blocks
        if len(blocks) > 1:
            self._finished = len(self._blocks) - 1
            start = blocks[-1].map[0] if blocks[-1].map else 0
            self._tail = "\n".join(self._tail.split("\n")[start:])

    def lines(self, width: int) -> list[Line]:
        """All rows at a width."""
        if width != self._width:
            self._rows, self._laid_out, self._lines = [], 0, None
            self._width = width
        if self._lines is None:
            for block in self._blocks[self._laid_out : self._finished]:
                self._rows.extend([*_block(block, width), EMPTY])
            self._laid_out = self._finished
            self._lines = [*self._rows, *_lay_out(self._blocks[self._finished :], width)]
        return self._lines


def code_blocks(text: str) -> list[str]:
    """All code of a text, each block whole and exactly as written."""
    nodes = _parse(text).walk()
    return [_source(node) for node in nodes if node.type in ("fence", "code_block")]


def _parse(text: str) -> SyntaxTreeNode:
    """The tree of a text; the words of an inline node are in its `meta`."""
    from markdown_it.tree import SyntaxTreeNode

    tokens = _parser().parse(text)
    for token in tokens:
        if token.type == "inline":
            # Read here: blocks nest twenty deep at most, emphasis as deep as a text likes.
            token.meta["words"] = _inline(token)
            token.children = None
    return SyntaxTreeNode(tokens)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # 40 ms; not needed before the first reply is shown

    parser = MarkdownIt("commonmark", {"html": False})
    return parser.enable(["table", "strikethrough"])


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


def _words(node: SyntaxTreeNode) -> Content:
    """The running text of a paragraph, a heading or a cell."""
    words: Content = node.children[0].meta["words"]
    return words


def _lay_out(
    blocks: Sequence[SyntaxTreeNode], width: int, depth: int = 0, *, tight: bool = False
) -> list[Line]:
    """The rows of some blocks, one blank row between two of them unless they are tight."""
    lines: list[Line] = []
    for block in blocks:
        if lines and not tight:
            lines.append(EMPTY)
        lines.extend(_block(block, width, depth))
    return lines


def _block(node: SyntaxTreeNode, width: int, depth: int = 0) -> list[Line]:
    """The rows of one block; `depth` is how many lists it stands in."""
    width = max(width, 1)
    match node.type:
        case "paragraph":
            return wrap(_words(node), width)
        case "heading":
            level = int(node.tag[1:])
            style = "bold $text-primary" if level <= 2 else "bold"
            marks = Content.styled("#" * level + " ", MUTED)
            rows = wrap(_words(node).stylize(style), width - level - 1)
            return indent(rows, marks, Content(" " * (level + 1)))
        case "fence" | "code_block":
            return _code(node, width)
        case "blockquote":
            bar = Content.styled("▎ ", MUTED)
            return indent(_lay_out(node.children, width - 2, depth) or [EMPTY], bar, bar)
        case "bullet_list" | "ordered_list":
            return _items(node, width, depth)
        case "table":
            return _table(node, width)
        case "hr":
            return [Line(Content.styled("─" * min(width, 40), MUTED), chrome=min(width, 40))]
    return []


def _source(node: SyntaxTreeNode) -> str:
    return node.content.rstrip("\n")


def _code(node: SyntaxTreeNode, width: int) -> list[Line]:
    """Code on a tinted ground, the language named above it; long lines go on below."""
    inner = max(width - 2, 1)
    margin = Content(" ")
    lines: list[Line] = []
    language, *_ = [*node.info.split(), ""]
    if language:
        label = Content.styled(f" {language}", MUTED)
        lines.append(_tinted(Line(label, chrome=len(label.plain)), width))
    for source in _highlighted(_source(node), language).split("\n", allow_blank=True):
        folded = source.expand_tabs(4).fold(inner) if source else [source]
        for number, row in enumerate(folded, 1):
            joint = "" if number < len(folded) else "\n"
            lines.append(_tinted(Line(margin + row, joint, chrome=1), width))
    return lines


def _tinted(line: Line, width: int) -> Line:
    content = line.content
    if (missing := width - content.cell_length) > 0:
        content = content.pad_right(missing)
    return Line(content.stylize_before(_CODE_BACKGROUND), line.joint, line.chrome)


@lru_cache(maxsize=64)
def _highlighted(text: str, language: str) -> Content:
    if not language or len(text) > _LONGEST_HIGHLIGHTED:
        return Content(text)
    from textual.highlight import highlight  # pygments: only where there is code

    shown = highlight(text, language=language)
    # The highlighter may trim or normalise; what is shown must be what was written.
    return shown if shown.plain == text else Content(text)


def _items(node: SyntaxTreeNode, width: int, depth: int) -> list[Line]:
    lines: list[Line] = []
    paragraphs = [one for item in node.children for one in item.children if one.type == "paragraph"]
    tight = all(one.hidden for one in paragraphs)
    start = int(node.attrs.get("start", 1))
    last = start + len(node.children) - 1
    for number, item in enumerate(node.children, start):
        marker = _BULLETS[depth % len(_BULLETS)] + " "
        if node.type == "ordered_list":
            marker = f"{number}.".rjust(len(f"{last}.")) + " "
        if lines and not tight:
            lines.append(EMPTY)
        inside = _lay_out(item.children, width - len(marker), depth + 1, tight=tight) or [EMPTY]
        lines.extend(
            indent(inside, Content.styled(marker, "$text-secondary"), Content(" " * len(marker)))
        )
    return lines


def _table(node: SyntaxTreeNode, width: int) -> list[Line]:
    rows = [
        [_words(cell) for cell in row.children] for part in node.children for row in part.children
    ]
    widths = _column_widths(rows, width)
    rule = Content.styled("─┼─".join("─" * column for column in widths), MUTED)
    lines: list[Line] = []
    for number, row in enumerate(rows):
        cells = [cell.stylize("bold") if number == 0 else cell for cell in row]
        lines.extend(_row(cells, widths))
        if number == 0:
            lines.append(Line(rule, chrome=len(rule.plain)))
    return lines


def _column_widths(rows: Sequence[Sequence[Content]], width: int) -> list[int]:
    """As wide as the cells want, or else shares of what there is."""
    wanted = [max(1, *(cell.cell_length for cell in column)) for column in zip(*rows, strict=True)]
    room = width - 3 * (len(wanted) - 1)
    while sum(wanted) > room and max(wanted) > _LEAST_COLUMN:
        widest = wanted.index(max(wanted))
        second = max((w for i, w in enumerate(wanted) if i != widest), default=0)
        excess = sum(wanted) - room
        least = max(_LEAST_COLUMN, min(second, wanted[widest] - 1))
        wanted[widest] = max(least, wanted[widest] - excess)
    return wanted


def _row(cells: Sequence[Content], widths: Sequence[int]) -> list[Line]:
    bar = Content.styled(" │ ", MUTED)
    wrapped = [
        [line.content for line in wrap(cell, column)]
        for cell, column in zip(cells, widths, strict=True)
    ]
    height = max(len(rows) for rows in wrapped)
    lines: list[Line] = []
    for y in range(height):
        parts = [(rows[y] if y < len(rows) else Content("")) for rows in wrapped]
        padded = [
            part.pad_right(max(0, column - part.cell_length))
            for part, column in zip(parts, widths, strict=True)
        ]
        lines.append(Line(bar.join(padded)))
    return lines
