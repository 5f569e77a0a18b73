"""The static checks: format, lint, types, import rules. `python -m tests.checks` runs them all.

They run at the same time; what one of them finds is printed, and the exit status says if any did.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CHECKS = {
    "format": ["-m", "ruff", "format", "--check", "."],
    "lint": ["-m", "ruff", "check", "."],
    "types": ["-m", "mypy"],
    "layers": ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
}


def main() -> int:
    running = {
        name: subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, command in CHECKS.items()
    }
    failed = False
    for name, process in running.items():
        output, _ = process.communicate()
        print(f"{name}: {'found something' if process.returncode else 'ok'}", flush=True)
        if process.returncode:
            failed = True
            print(output)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
