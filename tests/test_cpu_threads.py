"""There is a thread for each free core, unless the user has chosen a number."""
import os

import pytest
import torch

from digitfast.training import cpu_threads
from digitfast.training.cpu_threads import TICKS, Look, fitting_threads

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not CORES, reason="cores are counted on Linux only")


@pytest.fixture
def stat(tmp_path, monkeypatch):
    "Replace /proc/stat, the clock and this process's own seconds; a call moves them forward."
    now = {"clock": 0.0, "own": 0.0}
    monkeypatch.setattr(cpu_threads.time, "monotonic", lambda: now["clock"])
    monkeypatch.setattr(cpu_threads.os, "times", lambda: (now["own"], 0.0, 0.0, 0.0, 0.0))
    file = tmp_path / "stat"

    def pass_by(seconds: float, busy: float, own: float = 0.0):
        "Add `busy` seconds of this process's first core, of which `own` are its own."
        now["clock"] += seconds
        now["own"] += own
        pass_by.busy += busy
        rows = ["cpu 1 2 3 4",
                f"cpu{CORES[0]} {int(pass_by.busy * TICKS)} 0 0 99 99 0 0 0 0 0",
                f"cpu{max(CORES) + 1} 77777 0 0 5",
                "intr 1 2"]
        file.write_text("\n".join(rows) + "\n")
    pass_by.busy = 100.0
    pass_by.file = file
    pass_by(0, 0)
    return pass_by


@pytest.fixture
def two_threads(monkeypatch):
    "Use two threads, as on a machine with two cores where nobody has chosen a number."
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_what_others_do_is_what_this_process_does_not(stat):
    look = Look(stat.file)
    stat(seconds=10, busy=9, own=2)
    assert look.others() == pytest.approx(0.7)


def test_a_short_look_says_nothing(stat):
    look = Look(stat.file)
    stat(seconds=0.4, busy=0.4)
    assert look.others() == 0


def test_without_proc_nothing_is_known(stat, tmp_path):
    look = Look(tmp_path / "nothing")
    stat(seconds=10, busy=9)
    assert look.others() == 0


@pytest.mark.parametrize(("busy", "threads"), [(0, 2), (4, 2), (6, 1), (40, 1)])
def test_a_thread_for_each_core_that_is_free(stat, two_threads, monkeypatch, busy, threads):
    monkeypatch.setattr(cpu_threads, "_look", Look(stat.file))
    stat(seconds=10, busy=busy)
    with fitting_threads():
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "WORLD_SIZE"])
def test_a_number_that_was_chosen_stays(stat, two_threads, monkeypatch, name):
    monkeypatch.setattr(cpu_threads, "_look", Look(stat.file))
    monkeypatch.setenv(name, "2")
    stat(seconds=10, busy=10)
    with fitting_threads():
        assert torch.get_num_threads() == 2


def test_without_the_command_line_nothing_changes(two_threads, monkeypatch):
    monkeypatch.setattr(cpu_threads, "_look", None)
    with fitting_threads():
        assert torch.get_num_threads() == 2
