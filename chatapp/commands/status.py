"""What the program's exit status means."""

DONE = 0
FAILED = 1
"""With one line that says what happened and what to do."""
WRONG_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Whoever read standard output has gone."""
