"""What can be tested in one process; tests/test_distributed.py starts two."""
import pytest

from digitfast import BadSetting, ProcessEnded
from digitfast.training.processes import (
    check_shares,
    gathered,
    is_first,
    joined,
    launched,
    on_first_process,
    process_count,
    process_rank,
    wanted_by_any,
)


@pytest.fixture
def one_of_two(monkeypatch):
    "Set the environment of the first of two processes, as torch's launcher does."
    environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_one_process_does_everything_itself():
    assert process_count() == 1
    assert launched("fit") == "digitfast fit"
    assert on_first_process(lambda: 3)() == 3
    assert gathered(3) == [3]
    assert wanted_by_any(True, False) == [True, False]
    with joined():
        check_shares(33)


def test_a_batch_is_shared_evenly_with_two_images_at_least(one_of_two):
    check_shares(4)
    for bs in (2, 33):
        with pytest.raises(BadSetting, match="equal shares of at least 2"):
            check_shares(bs)
    assert launched("fit") == "torchrun --nproc_per_node 2 -m digitfast fit"


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_what_a_launcher_leaves_out_is_named(one_of_two, monkeypatch, name):
    monkeypatch.delenv(name)
    with pytest.raises(BadSetting, match=f"WORLD_SIZE=2 is set without {name};"), joined():
        pass


@pytest.fixture
def joined_already(one_of_two, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)


@pytest.mark.parametrize("words, lost", [
    ("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:42", True),
    ("NCCL error: remote process exited or there was a network error", True),
    ("NCCL error: unhandled system error, Error while creating shared memory segment", False),
    ("gloo: the interface eth9 is unknown", False)])
def test_only_the_end_of_a_process_is_taken_for_one(joined_already, words, lost):
    with pytest.raises(RuntimeError) as e, joined():
        raise RuntimeError(words)
    assert isinstance(e.value, ProcessEnded) == lost
    assert lost or str(e.value) == words


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK"])
def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert (process_count(), process_rank(), is_first()) == (1, 0, True)


def test_a_variable_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(BadSetting, match="WORLD_SIZE"):
        process_count()
