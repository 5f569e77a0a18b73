"""A text that can be edited with Vim's keys.

Its normal and visual modes know counts, the operators d c y, motions, text objects, one register,
undo and repeat; `VIM` lists them. A motion is worked out on the whole text as one string.
"""

from __future__ import annotations

import re
from typing import Literal

from textual import events
from textual.reactive import reactive
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

Mode = Literal["insert", "normal", "visual", "lines"]

VIM = (
    "With Vim's keys (/vim on) Esc goes to normal mode, and i a I A o O back to writing. There"
    " h j k l w b e W B E 0 ^ $ gg G { } % f F t T ; , move, with counts; d c y act with these, and"
    ' with iw aw ip ap i( i" and their like; dd cc yy D C Y x X s S r ~ J p P v V . are as ever,'
    " u undoes and U does again. Enter sends in either mode."
)

_COMMAND = re.compile(
    r"(?P<count>[1-9]\d*)?(?:(?P<op>[dcy])(?P<again>[1-9]\d*)?)?(?P<key>[fFtTr].|[ia].|gg|.)?",
    re.DOTALL,
)
_SMALL = re.compile(r"\w+|[^\w\s]+|(?:(?<=\n)|\A)(?=\n)")
"""Words; an empty line is one."""
_BIG = re.compile(r"\S+|(?:(?<=\n)|\A)(?=\n)")
_RUNS = {"w": re.compile(r"\w+|[^\w\s]+|[^\S\n]+"), "W": re.compile(r"\S+|[^\S\n]+")}
_PAIRS = ("()", "[]", "{}", "<>")
_AS_LETTERS = {
    "enter": "+", "backspace": "h", "delete": "x", "left": "h", "right": "l", "up": "k",
    "down": "j", "home": "0", "end": "$",
}  # fmt: skip
_SHORT = {"x": "dl", "X": "dh", "D": "d$", "C": "c$", "s": "cl", "S": "cc", "Y": "yy"}
_BEGIN = ("g", "f", "F", "t", "T", "r")
"""What is a command only with the letter behind it."""
_CHANGING = set("xXDCsSpPrJ~iaIAoO")


class VimArea(TextArea):
    """A text; without `vim` one like any other."""

    vim: reactive[bool] = reactive(False)
    mode: reactive[Mode] = reactive[Mode]("insert")

    _typed = ""  # of a command that is not complete
    _register, _register_lines = "", False
    _found = ""  # the last of f F t T, with its character
    _anchor = _head = 0  # of what is selected, both ends belonging to it
    _change = ""  # the command that . repeats
    _inserting_from: int | None = None
    _inserted = ""  # by that command

    def watch_vim(self, vim: bool) -> None:
        """Begin with writing."""
        self.mode = "insert"
        self.set_class(vim, "-vim")

    def watch_mode(self, mode: Mode) -> None:
        """Show the mode by the cursor's form."""
        self._typed = ""
        self.set_class(mode != "insert", "-normal")

    def on_blur(self) -> None:
        """A letter that is typed anywhere later is to be written."""
        self.mode = "insert"

    def on_mouse_down(self) -> None:
        """What is selected by the mouse is not what these keys have selected."""
        if self.mode != "insert":
            self.mode = "normal"

    async def _on_key(self, event: events.Key) -> None:
        if not self.vim or self.read_only:
            return
        key = event.character if event.is_printable else _AS_LETTERS.get(event.key)
        if event.key == "escape":
            if not self._escape():
                return
        elif self.mode == "insert" or not key:
            return
        else:
            self._type(key)
        event.stop()
        event.prevent_default()

    def row(self, steps: int) -> None:
        """Go to another row of the screen."""
        if steps > 0 and not self.cursor_at_last_line:
            self.action_cursor_down()
        elif steps < 0 and not self.cursor_at_first_line:
            self.action_cursor_up()

    # Modes

    def _escape(self) -> bool:
        """Leave the mode, or what is typed of a command. Returns whether there was either."""
        if self.mode == "insert":
            if not self.text:
                return False  # there is nothing to move in
            if self._inserting_from is not None:
                self._inserted = self.text[self._inserting_from : self._at]
                self._inserting_from = None
            self.mode = "normal"
            self._go(max(self._start(self._at), self._at - 1))
        elif self.mode != "normal":
            self._leave_visual(self._head)
        elif self._typed:
            self._typed = ""
        else:
            return False
        return True

    def _insert_at(self, at: int) -> None:
        self._go(at, past_end=True)
        self.mode = "insert"
        self._inserting_from = at

    def _leave_visual(self, at: int) -> None:
        self.mode = "normal"
        self._go(at)

    # Commands

    def _type(self, key: str) -> None:
        self._typed += key
        found = _COMMAND.fullmatch(self._typed)
        visual = self.mode != "normal"
        operator = (found["op"] or "") if found else ""
        what = (found["key"] or "") if found else ""
        begun = what in ("", *_BEGIN) or (what in ("i", "a") and (operator or visual))
        if found and begun and not (visual and operator):
            return  # the rest is to come
        typed, self._typed = self._typed, ""
        if not found:
            return
        counted = bool(found["count"] or found["again"])
        count = min(int(found["count"] or 1) * int(found["again"] or 1), 9999)
        if visual and operator:
            self._operate_visual(operator)
        elif visual:
            self._do_visual(what, count, counted)
        else:
            if operator in ("d", "c") or (not operator and what[0] in _CHANGING):
                self._change, self._inserted = typed, ""
            self.history.checkpoint()
            self._do(operator, what, count, counted)

    def _do(self, operator: str, what: str, count: int, counted: bool) -> None:
        """One command of normal mode."""
        at, text = self._at, self.text
        if not operator and what in _SHORT:
            if what in "xs" and at == self._end(at):  # an empty line
                return self._insert_at(at) if what == "s" else None
            operator, what = _SHORT[what][0], _SHORT[what][1]
        if operator:
            return self._operate(operator, what, count, counted)
        start, end = self._start(at), self._end(at)
        match what[0]:
            case "j" | "k" | "+" if not counted:
                self.row(-1 if what == "k" else 1)
                self._go(self._at, records=False)
            case "i" | "a" | "I" | "A":
                indent = start + len(text[start:end]) - len(text[start:end].lstrip())
                places = {"i": at, "a": min(at + 1, end), "I": indent, "A": end}
                self._insert_at(places[what])
            case "o" | "O":
                self._swap(end if what == "o" else start, 0, "\n")
                self._insert_at(end + 1 if what == "o" else start)
            case "v" | "V":
                self._anchor = self._head = at
                self.mode = "visual" if what == "v" else "lines"
                self._select()
            case "r":
                if at + count <= end:
                    self._swap(at, count, what[1] * count)
                    self._go(at + count - 1)
            case "~":
                some = text[at : min(at + count, end)]
                self._swap(at, len(some), some.swapcase())
                self._go(at + len(some))
            case "J":
                self._join(start, max(count - 1, 1))
            case "p" | "P":
                self._put(what, count)
            case "u" | "U":
                for _ in range(count):
                    (self.undo if what == "u" else self.redo)()
                self._go(self._at)
            case ".":
                self._repeat()
            case _:
                if (moved := self._motion(what, count, counted)) is not None:
                    self._go(moved[0])

    def _repeat(self) -> None:
        """Do the last change again, with the same text."""
        inserted = self._inserted
        for key in self._change:
            self._type(key)
        if self.mode == "insert":
            self.insert(inserted)
            self._escape()
        self._inserted = inserted

    def _operate(self, operator: str, what: str, count: int, counted: bool) -> None:
        at, text = self._at, self.text
        if operator == "c" and what in ("w", "W") and text[at : at + 1].strip():
            what = {"w": "e", "W": "E"}[what]
            word = (_SMALL if what == "e" else _BIG).match(text, at)
            count -= word is not None and word.end() == at + 1  # it ends here already
            if not count:
                return self._cut(operator, at, at + 1, lines=False)
        if what == operator:
            last = self._line(self._row(at) + count - 1)
            return self._cut(operator, at, last, lines=True)
        if what[0] in "ia":
            if (found := self._object(what)) is not None:
                self._cut(operator, *found)
            return None
        if (moved := self._motion(what, count, counted)) is None:
            return None
        target, kind = moved
        first, last = min(at, target), max(at, target)
        lines = kind == "lines"
        if kind == "exclusive" and "\n" in text[first:last]:
            if what in ("w", "W") and not text[self._start(last) : last].strip():
                lines = first == self._end(first)  # an empty line is a word
                last = first if lines else self._end(first + len(text[first:last].rstrip()))
            elif last == self._start(last):  # it ends with the line before, as Vim has it
                last -= 1
                lines = not text[self._start(first) : first].strip()
        last += kind == "inclusive"
        if operator == "d" and "\n" in text[first:last]:
            around = text[self._start(first) : first] + text[last : self._end(last)]
            lines = lines or not around.strip()  # nothing else would be left in these lines
        self._cut(operator, first, last, lines)

    def _cut(self, operator: str, first: int, last: int, lines: bool) -> None:
        """Copy a part of the text, and take it away where the operator says so."""
        text = self.text
        if lines:
            first, last = self._start(first), self._end(last)
        self._register, self._register_lines = text[first:last], lines
        if operator == "y":
            self.app.copy_to_clipboard(text[first:last])
            self._go(self._at if lines and self._at >= first else first)
        elif operator == "c":
            self._swap(first, last - first, "")
            self._insert_at(first)
        else:
            if lines and last < len(text):
                last += 1
            elif lines and first:
                first -= 1
            self._swap(first, last - first, "")
            self._go(self._indent(min(first, len(self.text))) if lines else first)

    def _put(self, what: str, count: int) -> None:
        at, put = self._at, self._register * count
        if not put:
            return
        if self._register_lines:
            put = "\n".join([self._register] * count)
            place = self._start(at) if what == "P" else self._end(at)
            self._swap(place, 0, f"{put}\n" if what == "P" else f"\n{put}")
            self._go(self._indent(place if what == "P" else place + 1))
        else:
            place = at if what == "P" else min(at + 1, self._end(at))
            self._swap(place, 0, put)
            self._go(place if "\n" in put else place + len(put) - 1)

    def _join(self, start: int, times: int) -> None:
        for _ in range(times):
            text, end = self.text, self._end(start)
            if end == len(text):
                return
            after = text[end + 1 : self._end(end + 1)]
            gap = "" if not after.strip() or text[end - 1 : end].isspace() else " "
            taken = len(after) - len(after.lstrip()) + 1
            self._swap(end, taken, gap)
            self._go(end)

    # Visual mode

    def _do_visual(self, what: str, count: int, counted: bool) -> None:
        if what in ("x", "X", "s", "S", "D", "C", "Y"):
            self._operate_visual({"x": "d", "s": "c"}.get(what, _SHORT.get(what, what)[0]))
        elif what in ("v", "V"):
            mode: Mode = "visual" if what == "v" else "lines"
            if mode == self.mode:
                return self._leave_visual(self._head)
            self.mode = mode
        elif what in ("p", "P", "~", "J", "u", "U"):
            first, last = sorted((self._anchor, self._head))
            put, lines = self._register, self._register_lines
            some = self.text[first : last + 1]
            self.history.checkpoint()
            if what == "J":
                rows = self._row(last) - self._row(first)
                self._leave_visual(first)
                return self._join(self._start(first), max(rows, 1))
            if what in ("p", "P"):
                if self.mode == "lines":
                    first, last = self._start(first), self._end(last) - 1
                self._register, self._register_lines = self.text[first : last + 1], False
                new = f"\n{put}\n" if lines and self.mode == "visual" else put
            else:
                new = {"~": str.swapcase, "u": str.lower, "U": str.upper}[what](some)
            self._swap(first, last + 1 - first, new)
            self._leave_visual(first)
        elif what == "o":
            self._anchor, self._head = self._head, self._anchor
        elif what[0] in "ia" and (found := self._object(what)) is not None:
            self._anchor, self._head = found[0], max(found[0], found[1] - 1)
            self.mode = "lines" if found[2] else self.mode
        elif (moved := self._motion(what, count, counted)) is not None:
            self._head = moved[0] + (what == "$")  # and the line's end
        if self.mode != "normal":
            self._head = min(self._head, max(len(self.text) - 1, 0))
            self._select()
        return None

    def _operate_visual(self, operator: str) -> None:
        first, last = sorted((self._anchor, self._head))
        lines = self.mode == "lines"
        self.history.checkpoint()
        self._leave_visual(first)
        self._cut(operator, first, last if lines else min(last + 1, len(self.text)), lines)

    def _select(self) -> None:
        """Mark what is selected, with the character under the cursor."""
        first, last = self._anchor, self._head
        if self.mode == "lines":
            ends = self._start(min(first, last)), self._end(max(first, last))
        else:
            ends = min(first, last), min(max(first, last) + 1, len(self.text))
        there, here = ends if first <= last else ends[::-1]
        self.selection = Selection(self._location(there), self._location(here))

    # Where things are, as places in the text

    @property
    def _at(self) -> int:
        if self.mode in ("visual", "lines"):
            return self._head
        row, column = self.cursor_location
        return self._line(row) + column

    def _location(self, at: int) -> tuple[int, int]:
        return self._row(at), at - self._start(at)

    def _go(self, at: int, *, past_end: bool = False, records: bool = True) -> None:
        """Put the cursor there, or on the last character of the line.

        `records`: whether other rows are gone through in this column from now on.
        """
        end = self._end(min(at, len(self.text)))
        if not past_end and at >= end:
            at = max(self._start(end), end - 1)
        self.move_cursor(self._location(at), record_width=records)

    def _swap(self, at: int, count: int, text: str) -> None:
        ends = self._location(at), self._location(at + count)
        self.replace(text, *ends, maintain_selection_offset=False)

    def _start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _end(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end

    def _row(self, at: int) -> int:
        return self.text.count("\n", 0, at)

    def _line(self, row: int) -> int:
        """Where a line begins; the first or last one beyond either end."""
        starts = [0, *(found.end() for found in re.finditer("\n", self.text))]
        return starts[max(0, min(row, len(starts) - 1))]

    def _indent(self, at: int) -> int:
        """The first character of a line that is no blank."""
        start, line = self._start(at), self.text[self._start(at) : self._end(at)]
        return start + len(line) - len(line.lstrip())

    def _motion(
        self, key: str, count: int, counted: bool
    ) -> tuple[int, Literal["exclusive", "inclusive", "lines"]] | None:
        """Where a motion leads, and what an operator takes with it; None where it can't."""
        at, text = self._at, self.text
        start, end = self._start(at), self._end(at)
        match key[0]:
            case "h":
                return max(start, at - count), "exclusive"
            case "l" | " ":
                return min(end, at + count), "exclusive"
            case "j" | "k" | "+":
                row = self._row(at) + (-count if key == "k" else count)
                if not 0 <= row <= text.count("\n"):
                    return None
                there = self._line(row)
                return min(there + at - start, max(there, self._end(there) - 1)), "lines"
            case "g" | "G":
                there = self._line(count - 1 if counted or key == "gg" else text.count("\n"))
                return self._indent(there), "lines"
            case "0":
                return start, "exclusive"
            case "^":
                return self._indent(at), "exclusive"
            case "$":
                last = self._end(self._line(self._row(at) + count - 1))
                return max(start, last - 1), "inclusive" if last > start else "exclusive"
            case "w" | "W" | "b" | "B" | "e" | "E" | "{" | "}":
                places = self._ahead(key)
                kind: Literal["exclusive", "inclusive"] = (
                    "inclusive" if key in "eE" else "exclusive"
                )
                return places[min(count, len(places)) - 1], kind
            case "f" | "F" | "t" | "T" | ";" | ",":
                return self._find(key, count)
            case "%":
                found = re.compile(r"[(\[{)\]}]").search(text, at, end)
                partner = self._partner(found.start()) if found else None
                return None if partner is None else (partner, "inclusive")
        return None

    def _ahead(self, key: str) -> list[int]:
        """Where a motion by words or paragraphs can stop, and at last the end of the text."""
        at, text = self._at, self.text
        if key in "{}":
            blank = [found.start() for found in re.finditer(r"(?:(?<=\n)|\A)(?=\n)", text)]
            if key == "}":
                return [*(b for b in blank if b > at and text[at:b].strip("\n")), len(text)]
            return [*(b for b in blank[::-1] if b < at and text[b:at].strip("\n")), 0]
        words = [*(_SMALL if key.islower() else _BIG).finditer(text)]
        if key in "wW":
            return [*(word.start() for word in words if word.start() > at), len(text)]
        if key in "bB":
            return [*(word.start() for word in words[::-1] if word.start() < at), 0]
        ends = (word.end() - 1 for word in words if word[0])
        return [*(end for end in ends if end > at), max(len(text) - 1, 0)]

    def _find(self, key: str, count: int) -> tuple[int, Literal["exclusive", "inclusive"]] | None:
        """The place of a character in the line."""
        at, again = self._at, key in (";", ",")
        if not again:
            self._found = key
        if not self._found:
            return None
        kind, character = self._found[0], self._found[1]
        if key == ",":
            kind = kind.swapcase()
        line = (
            range(at + 1, self._end(at)) if kind in "ft" else range(at - 1, self._start(at) - 1, -1)
        )
        places = [place for place in line if self.text[place] == character]
        if again and kind in "tT" and places and abs(places[0] - at) == 1:
            places = places[1:]  # it stands before that one already
        if len(places) < count:
            return None
        there = places[count - 1]
        if kind in "ft":
            return there - (kind == "t"), "inclusive"
        return there + (kind == "T"), "exclusive"

    def _partner(self, at: int) -> int | None:
        """The bracket that belongs to the one at a place."""
        text = self.text
        pair = next(pair for pair in _PAIRS if text[at] in pair)
        opening = text[at] == pair[0]
        depth = 0
        for place in range(at, len(text)) if opening else range(at, -1, -1):
            depth += {pair[0]: 1, pair[1]: -1}.get(text[place], 0)
            if not depth:
                return place
        return None

    def _object(self, what: str) -> tuple[int, int, bool] | None:
        """What a text object holds: from, up to, whether these are lines."""
        at, text, around = self._at, self.text, what[0] == "a"
        start, end = self._start(at), self._end(at)
        name = {"b": "(", "B": "{"}.get(what[1], what[1])
        if name in _RUNS:
            runs = [(one.start(), one.end()) for one in _RUNS[name].finditer(text, start, end)]
            here = next((n for n, (_, last) in enumerate(runs) if at < last), None)
            if here is None:
                return (at, at, False) if not around else None
            first, last = runs[here]
            blank = not text[first:last].strip()
            if around and here + 1 < len(runs) and blank != (not text[last : last + 1].strip()):
                last = runs[here + 1][1]
            elif around and here and not text[first - 1].strip():
                first = runs[here - 1][0]
            return first, last, False
        if name == "p":
            first = last = self._row(at)
            rows = text.split("\n")

            def run(row: int, step: int, blank: bool) -> int:
                """How far rows of one kind go on from the one before."""
                while 0 <= row < len(rows) and blank != bool(rows[row].strip()):
                    row += step
                return row - step

            blank = not rows[first].strip()
            first, last = run(first, -1, blank), run(last, 1, blank)
            if around and (further := run(last + 1, 1, not blank)) > last:
                last = further
            elif around:
                first = run(first - 1, -1, not blank)
            return self._line(first), self._end(self._line(last)), True
        if name in "\"'`":
            quotes = [n for n in range(start, end) if text[n] == name]
            pairs = zip(quotes[::2], quotes[1::2], strict=False)
            pair = next(((a, b) for a, b in pairs if at <= b), None)
            return None if pair is None else _within(*pair, around=around)
        brackets = next((pair for pair in _PAIRS if name in pair), None)
        if brackets is None:
            return None
        for place in range(min(at, len(text) - 1), -1, -1):
            partner = self._partner(place) if text[place] == brackets[0] else None
            if partner is not None and partner >= at:
                return _within(place, partner, around=around)
        return None


def _within(first: int, last: int, *, around: bool) -> tuple[int, int, bool]:
    return (first, last + 1, False) if around else (first + 1, last, False)
