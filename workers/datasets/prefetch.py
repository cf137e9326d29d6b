"""Batches of data that do not lie on the device, read ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from torch import Tensor

from workers.datasets.base import Examples

AHEAD = 3
POLL_SECONDS = 0.05  # a reader with nobody left to take its batches notices within this

Batch = tuple[Tensor, Tensor]


class Prefetch:
    """The training batches of consecutive steps, in their order, a few of them ready.

    What is read depends on the step alone, so it is the same however far ahead the thread is. On a GPU
    batches are copied from pinned memory without waiting. Used as a context manager, or closed.

    Args:
        examples: to take from.
        places: of a step, int64 on the host.
        first, last: steps; the last is left out.
        ahead: batches that are ready at most.
    """

    def __init__(
        self,
        examples: Examples,
        places: Callable[[int], Tensor],
        first: int,
        last: int,
        ahead: int = AHEAD,
    ) -> None:
        self._examples, self._places, self._steps = examples, places, range(first, last)
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(ahead)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the last iteration ended; raises here what reading raised."""
        while not self._closing.is_set():
            found = self._ready.get()
            if found is None or isinstance(found, BaseException):
                self.close()
                if found is not None:
                    raise found
                return
            yield found

    def close(self) -> None:
        """Ends the thread; what it has read is dropped."""
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        try:
            for step in self._steps:
                if not self._put(self._examples.take("train", self._places(step))):
                    return
            self._put(None)
        except BaseException as error:  # is raised again by whoever takes batches
            self._put(error)

    def _put(self, item: Batch | BaseException | None) -> bool:
        while not self._closing.is_set():
            try:
                self._ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
