"""How many threads a training at the prompt takes: one for each core that other processes leave free.

torch takes as many threads as there are cores, and while they wait for each other they keep their cores busy: two
trainings at once on two cores took five times as long as one. The number is settled once, before the training, since
sums come out a little differently with another one; a training that goes on takes the number that it began with.
"""
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHORTEST_LOOK = 0.5  # seconds; in less nothing can be said
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # per second, in which Linux counts


class Look:
    "What the cores of this process do from now on."

    def __init__(self, stat: Path = Path("/proc/stat")):
        self.stat = stat
        self.start, self.busy, self.own = time.monotonic(), self._busy(), self._own()

    def others(self) -> float:
        "How many cores other processes have kept busy in the mean since then; 0 where that cannot be known."
        seconds = time.monotonic() - self.start
        if self.busy is None or seconds < SHORTEST_LOOK:
            return 0.0
        return max(0.0, (self._busy() - self.busy - (self._own() - self.own)) / seconds)

    def _busy(self) -> float | None:
        "Seconds in which the cores that this process may use have worked; None elsewhere than on Linux."
        if not self.stat.is_file():
            return None
        mine = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        rows = [line.split() for line in self.stat.read_text().splitlines()]
        user_nice_system = sum(int(ticks) for row in rows if row and row[0] in mine for ticks in row[1:4])
        return user_nice_system / TICKS

    @staticmethod
    def _own() -> float:
        return sum(os.times()[:2])


_look: Look | None = None  # of the command line, from its start


def look_on() -> None:
    "Begin to look at what other processes do: the command line does so first thing."
    global _look
    _look = Look()


@contextmanager
def fitting_threads() -> Iterator[None]:
    """While the context lasts, torch takes a thread for each core that was free since `look_on`, and at least one.

    Without `look_on`, and where somebody has chosen a number (OMP_NUM_THREADS, `torch.set_num_threads`, a launcher of
    several processes), that number stays. A number that is set within the context is forgotten behind it.
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
