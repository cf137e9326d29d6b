"""Processes that train one run together, each on its share of every batch.

The first one decides: it orders a number of steps, and nobody trains a step that was not ordered. So the
others hang on no stop, limit or divergence, and the first has its hands free between orders to evaluate and
to write checkpoints.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

MEETING_SECONDS = 300.0  # others may still be importing
SILENCE = timedelta(minutes=30)  # of the first process, while it evaluates
BROKEN = "broken"
OVER = "over"
OVER_SECONDS = 30.0  # for the others to hear of the end before connections close
GONE = ("Connection", "connection", "Broken pipe")  # gloo, where the other end is closed


@dataclass(frozen=True)
class Meeting:
    """Where the processes of one training find each other: an address of the first one, and its port."""

    address: str
    port: int
    processes: int


_open: list[TCPStore] = []  # of the last meeting held here; others may still read why it ended


def hold(address: str, processes: int) -> Meeting:
    """Opens a free port for the other processes of a training that this one leads."""
    _open.clear()
    wait = timedelta(seconds=MEETING_SECONDS)
    _open.append(TCPStore(address, 0, processes, is_master=True, timeout=wait, wait_for_workers=False))
    return Meeting(address, _open[0].port, processes)


class Team:
    """The processes of a training, as one of them sees them.

    Args:
        rank: of this process; 0 is the one that opened the meeting, decides and reports.
        gpu: gradients travel by NCCL between GPUs; otherwise by gloo.
    """

    def __init__(self, meeting: Meeting, rank: int, gpu: bool) -> None:
        self.rank, self.processes = rank, meeting.processes
        wait = timedelta(seconds=MEETING_SECONDS)
        self._store = (
            _open[0]
            if rank == 0
            else TCPStore(meeting.address, meeting.port, self.processes, is_master=False, timeout=wait)
        )
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=self._store,
            rank=rank,
            world_size=self.processes,
            timeout=SILENCE,
        )
        # Orders go from host to host: they must not make a host wait for its device.
        self._orders = dist.new_group(backend="gloo", timeout=SILENCE) if gpu else dist.group.WORLD

    @property
    def rows(self) -> slice:
        """Of every batch that this process takes."""
        return slice(self.rank, None, self.processes)

    def order(self, steps: int) -> None:
        """Has all processes train so many steps; 0 ends the training."""
        dist.broadcast(torch.tensor([steps]), 0, group=self._orders)
        if steps == 0:
            others = [f"{OVER}/{rank}" for rank in range(1, self.processes)]
            self._store.wait(others, timedelta(seconds=OVER_SECONDS))

    def ordered(self) -> int:
        """Waits for the order of the first process."""
        given = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(given, 0, group=self._orders)
        steps = int(given)
        if steps == 0:
            self._store.set(f"{OVER}/{self.rank}", "")
        return steps

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, each of which calls this."""
        dist.all_reduce(values)
        return values.div_(self.processes)

    def agree(self, step: int) -> None:
        """All processes must stand at the same step, each of which calls this.

        Raises:
            RuntimeError: some did not find the checkpoint of the others.
        """
        found = torch.zeros(self.processes, dtype=torch.int64)
        found[self.rank] = step
        dist.all_reduce(found, group=self._orders)
        if len(set(found.tolist())) > 1:
            raise RuntimeError(
                f"the processes of the run stand at the steps {found.tolist()}; cluster.checkpoints must be "
                "one folder on all machines"
            )

    def close(self) -> None:
        """Leaves; whoever waits for this process gets an error."""
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def broke(self, error: Exception) -> Exception:
        """Leaves because of an error.

        Returns:
            What is to be told: the error, or why another process broke where it comes from that.
        """
        why = None
        with suppress(RuntimeError):  # the first process is gone, and what was written with it
            if self._store.check([BROKEN]):
                rank, _, why = self._store.get(BROKEN).decode().partition(" ")
                why = None if int(rank) == self.rank else f"process {rank} of {self.processes} broke: {why}"
            elif not _is_of_others(error):
                self._store.set(BROKEN, f"{self.rank} {type(error).__name__}: {error}")
        self.close()
        if why is None and _is_of_others(error):
            why = f"a process of the run is gone: {error}"
        return error if why is None else RuntimeError(why)


def _is_of_others(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in GONE)
