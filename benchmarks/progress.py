"""Says on the terminal what a benchmark is at."""

import sys


def progress(text: str) -> None:
    """Shows `text` in place of what was shown last; an empty one clears the line. Nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
