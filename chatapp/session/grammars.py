"""What replies are held to, read from a file: a JSON schema, a grammar or a regular expression."""

from __future__ import annotations

import json
from pathlib import Path

from chatapp.chat.errors import ChatappError

_MOST_BYTES = 1 << 20
_KINDS = {".json": "json", ".lark": "lark", ".regex": "regex"}


class GrammarError(ChatappError):
    """A file that replies cannot be held to; the message says why."""


def read_grammar(file: Path) -> str:
    """What `SamplingParams.grammar` holds for a file, by its suffix.

    Raises GrammarError: it cannot be read or used.
    """
    kind = _KINDS.get(file.suffix)
    if kind is None:
        raise GrammarError(f"{file}: replies are held to {', '.join(_KINDS)} files")
    try:
        if not file.is_file():
            raise GrammarError(f"there is no file {file}")
        if file.stat().st_size > _MOST_BYTES:
            raise GrammarError(f"{file} is larger than 1 MiB")
        text = file.read_text("utf-8").strip()
        if kind == "json":
            schema = json.loads(text)
            if not isinstance(schema, dict | bool):
                raise GrammarError(f"{file} is no JSON schema: it has to be an object")
            text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    except OSError as error:
        raise GrammarError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"{file} is no JSON schema: {str(error)[:100]}") from None
    if not text:
        raise GrammarError(f"{file} is empty")
    from llguidance import LLMatcher, grammar_from

    fails, notes = LLMatcher.validate_grammar_with_warnings(
        grammar_from(kind, text)  # type: ignore[arg-type]
    )
    if fails:
        raise GrammarError(f"{file} cannot be used: {' '.join(notes[0].split())[:200]}")
    return f"{kind}:{text}"


def grammar_words(grammar: str) -> str:
    """What a grammar is, in a word or two; empty for none."""
    names = {"json": "a JSON schema", "regex": "a regular expression", "lark": "a grammar"}
    return names.get(grammar.partition(":")[0], "")
