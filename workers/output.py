"""What a process prints, kept within bounds."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import IO

MOST_BYTES = 1 << 20  # of output that is kept
TAIL_BYTES = 2000
CHUNK = 1 << 16


class Output:
    """Reads all that a process prints, so that it never waits, and keeps the first of it and the end.

    Args:
        stream: of the process.
        path: of the file that keeps the beginning.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path
        self._tail: deque[bytes] = deque(maxlen=2)
        self._thread = threading.Thread(target=self._read, daemon=True, name="output")
        self._thread.start()

    def tail(self) -> str:
        """The last words, on one line."""
        self._thread.join(1.0)
        text = b"".join(self._tail)[-TAIL_BYTES:].decode(errors="replace")
        return " | ".join(line.strip() for line in text.splitlines() if line.strip())[-500:]

    def close(self) -> None:
        """Once the process has ended."""
        self._thread.join(1.0)
        if not self._thread.is_alive():  # something it started may hold the other end
            self._stream.close()

    def _read(self) -> None:
        kept = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            while part := self._stream.read1(CHUNK):  # type: ignore[attr-defined]
                self._tail.append(part)
                if kept < MOST_BYTES:
                    file.write(part[: MOST_BYTES - kept])
                    file.flush()
                    kept += len(part)
                    if kept >= MOST_BYTES:
                        file.write(b"\n... what follows was not kept\n")
