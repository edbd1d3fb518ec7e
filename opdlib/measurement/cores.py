"""Tensors over the cores of this machine: largest first, each on one core, as many at once as its memory has room for.

One core for each is what keeps the bits: a BLAS gives other last digits on two threads than on one. It is also what
uses the machine: half of a tridiagonal reduction is bound by memory and gains nothing from a second core, while threads
that measure one tensor each are hardly ever in each other's way, since everything that takes long here lets go of
Python's lock.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from opdlib.errors import ParameterError, one_line
from opdlib.metrics.eigen import one_blas_thread

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def over_cores(
    one: Callable[[K], T],
    work: Mapping[K, int],
    workers: int,
    memory: int | None = None,
    bytes_of: Mapping[K, int] | None = None,
) -> Iterator[T]:
    """What `one` gives for each name, in the order of their work, most first, `workers` at a time.

    With `memory`, in bytes, the next that fits is taken whenever one is done: what runs takes no more than that
    together, by `bytes_of`. Raises ParameterError if one alone takes more, and what `one` raises.
    """
    ordered = sorted(work, key=lambda name: (-work[name], str(name)))
    needs = bytes_of if memory is not None and bytes_of else {}
    room = memory - memory_in_use() if memory is not None and needs else math.inf
    for name in ordered:
        if needs.get(name, 0) > room:
            raise ParameterError(
                f"memory {memory}: {name} needs {needs[name]} bytes beside the {memory_in_use()} that this process "
                f"takes already; wanted at least {needs[name] + memory_in_use()}"
            )
    waiting, running, done = list(ordered), dict[Future[T], K](), dict[K, T]()
    # torch counts the threads of its BLAS for each thread of the pool, so it is told in each of them.
    with one_blas_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for name in ordered:
            while name not in done:
                while len(running) < workers:
                    at = next((at for at, other in enumerate(waiting) if needs.get(other, 0) <= room), None)
                    if at is None:
                        break
                    fits = waiting.pop(at)
                    room -= needs.get(fits, 0)
                    running[pool.submit(one, fits)] = fits
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    ended = running.pop(future)
                    room += needs.get(ended, 0)
                    done[ended] = future.result()
            yield done.pop(name)


def memory_in_use() -> int:
    """Bytes of memory that this process takes now; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def bar_of(name: str, size: int, unit: str, progress: bool | None) -> tqdm[Any]:
    """A bar over work of this size, if `progress` is True; of None, on a terminal only."""
    hidden = None if progress is None else not progress
    return tqdm(total=size, unit=unit, unit_scale=True, desc=one_line(name) or None, disable=hidden)


def workers_of(asked: int | None) -> int:
    """How many matrices at once: the cores, if nobody asks for a number. Raises ParameterError."""
    if asked is not None and asked < 1:
        raise ParameterError(f"workers {asked}; wanted a number from 1 up")
    return asked or os.cpu_count() or 1


def device_of(name: str) -> str:
    """The device that `auto`, `cpu` or `cuda` means here. Raises ParameterError."""
    if name not in ("auto", "cpu", "cuda"):
        raise ParameterError(f"device {name!r}; wanted auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device cuda: there is none on this machine; use auto or cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
