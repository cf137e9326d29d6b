"""``python -m workers.guest``: calls training functions that are not ours, in a process of their own.

It lives as long as its worker has use for it, so that what a function imports is imported once.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback

from workers.report import connection, read_line, read_run, report, tell

LONGEST = 4000  # characters of a traceback


def main() -> int:
    """Serves runs until the worker closes the line."""
    line = connection()
    if line is None:
        print("this process is started by a worker; see docs/trainers.md", file=sys.stderr)  # noqa: T201
        return 2
    while text := read_line(line):
        entry, run = json.loads(text)
        tell(call(entry, run))
    return 0


def call(entry: str, run: str) -> dict[str, str]:
    """Trains one run; what is to be told of its end."""
    module, _, name = entry.partition(":")
    try:
        getattr(importlib.import_module(module), name)(read_run(run), report)
    except BaseException as error:  # whatever it is, the worker is told
        told = "".join(traceback.format_exception(error))
        return {"error": f"{type(error).__name__}: {error}", "traceback": told[-LONGEST:]}
    return {"done": ""}


if __name__ == "__main__":
    sys.exit(main())
