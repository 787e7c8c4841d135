"""Choose how many threads a training at the command line uses: one for each core that is free.

torch uses as many threads as there are cores, and keeps their cores busy while they wait for each
other: two trainings at once on two cores took five times as long as one. The number is chosen once,
before training, since sums come out slightly different with another number of threads; a resumed
training uses the number that it started with.
"""
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Clock ticks per second in which Linux counts the work of a core.
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Look:
    "Measure how busy this process's cores are from now on."

    def __init__(self, stat: Path = Path("/proc/stat")):
        self.stat = stat
        self.start = time.monotonic()
        self.busy = self._busy()
        self.own = self._own()

    def others(self) -> float:
        "Return how many cores other processes have kept busy on average; 0 if unknown."
        shortest = 0.5  # seconds; a shorter measurement says nothing
        seconds = time.monotonic() - self.start
        if self.busy is None or seconds < shortest:
            return 0.0
        return max(0.0, (self._busy() - self.busy - (self._own() - self.own)) / seconds)

    def _busy(self) -> float | None:
        "Return the seconds of work of the cores that this process may use; None except on Linux."
        if not self.stat.is_file():
            return None
        mine = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        rows = [line.split() for line in self.stat.read_text().splitlines()]
        user_nice_system = sum(int(ticks) for row in rows if row and row[0] in mine
                               for ticks in row[1:4])
        return user_nice_system / TICKS

    @staticmethod
    def _own() -> float:
        return sum(os.times()[:2])


_look: Look | None = None  # of the command line, from its start


def look_on() -> None:
    "Begin to measure what other processes do; the command line calls this first."
    global _look
    _look = Look()


@contextmanager
def fitting_threads() -> Iterator[None]:
    """While the context lasts, torch uses one thread per core that was free since `look_on`.

    It uses at least one thread. Without `look_on`, or where the number was set by OMP_NUM_THREADS
    or by a launcher of several processes, the number stays as it is. After the context the previous
    number is restored.
    """
    import torch
    before = torch.get_num_threads()
    chosen = "OMP_NUM_THREADS" in os.environ or "WORLD_SIZE" in os.environ
    if _look and not chosen:
        torch.set_num_threads(max(1, before - round(_look.others())))
    try:
        yield
    finally:
        torch.set_num_threads(before)
