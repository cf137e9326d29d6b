"""What runs train on: the device, how it computes, and how fast it is at best."""

from __future__ import annotations

import os
import platform
import time
from functools import lru_cache

import torch

from sweeps.resources import Resources
from sweeps.stacks import CPU as NAMED
from sweeps.trainer import Trainer

CPU = torch.device("cpu")
SIZE = {"cpu": 512, "cuda": 8192}  # of the square matrices that tell the peak
REPEATS = 5
GIB = 2.0**30


def pick(resources: Resources) -> torch.device:
    """The GPU where one is asked for, the CPU otherwise; as many threads as CPUs there are a process.

    Raises:
        RuntimeError: when GPUs are asked for and there is none.
    """
    torch.set_num_threads(resources.threads)
    if resources.gpus == 0:
        return CPU
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"resources.gpus is {resources.gpus:g}, but PyTorch {torch.__version__} sees no GPU here; "
            "set resources.gpus to 0 or start a worker with a GPU and a CUDA build of PyTorch"
        )
    return torch.device("cuda")


def set_kernels(trainer: Trainer) -> None:
    """How matrix products are rounded, and whether sums may come in any order."""
    torch.set_float32_matmul_precision("high" if trainer.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = trainer.precision == "tf32"  # which is on, if nobody says so
    strict = trainer.kernels == "deterministic"
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = not strict


def name(device: torch.device | None = None) -> str:
    """The same for all machines of a kind."""
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        return torch.cuda.get_device_name()
    return f"{NAMED} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def memory(device: torch.device) -> float:
    """Bytes that the device has in all."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def base(device: torch.device) -> float | None:
    """Bytes of a GPU that are taken while nothing trains: by libraries, data and others; None on a CPU."""
    if device.type != "cuda":
        return None
    wait(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return float(total - free)


def place(device: torch.device) -> str | None:
    """Which GPU of which machine; None for a CPU, and where several are in view."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f"{platform.node()}/{seen}" if device.type == "cuda" and seen and "," not in seen else None


def keep_to(device: torch.device, resources: Resources) -> None:
    """Holds the tensors of this process to its share of a GPU: what it lacks breaks it and no neighbour."""
    if device.type == "cuda" and resources.gpus < 1.0:
        torch.cuda.set_per_process_memory_fraction(resources.gpus)


class Meter:
    """Peak bytes on a GPU from its making on, without what lay there before, such as the data set."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)

    def peak(self) -> float | None:
        """None on a CPU, whose allocator does not count."""
        if self._device.type != "cuda":
            return None
        return float(torch.cuda.max_memory_allocated(self._device) - self._before)


@lru_cache(maxsize=8)
def peak_flops(kind: str, precision: str, threads: int) -> float:  # noqa: ARG001
    """Measured FLOPs a second of a large matrix product, the best of some.

    Args:
        kind: of device, cpu or cuda.
        precision: of the trainer.
        threads: in use.
    """
    size, device = SIZE[kind], torch.device(kind)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS):
        wait(device)
        began = time.perf_counter()
        left @ right
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def forget_peak(device: torch.device) -> None:
    """Counts the most memory in use anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def told_peak() -> str:
    """The most memory that tensors took of the GPU, for a reason; nothing where none is in use."""
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    if peak == 0:
        return ""
    _, total = torch.cuda.mem_get_info()
    return f"; tensors took {peak / GIB:.2f} GiB at most, the GPU has {total / GIB:.2f} GiB"


def wait(device: torch.device) -> None:
    """Lets the device finish what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
