import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from digitfast.errors import BadData
from digitfast.files import read_sealed, write_sealed

TENSORS = {"weight": torch.arange(12.0).view(3, 4).T, "steps": torch.tensor(3),
           "state": torch.tensor([1, 255]).byte(), "half": torch.ones(2, dtype=torch.bfloat16)}
FACTS = {"größe": 0.1, "list": [1, None, {"a": True}], "seal": '"sha256":"' + "0" * 64 + '"'}


@pytest.fixture
def file(tmp_path):
    return write_sealed(tmp_path / "mine.safetensors", TENSORS, FACTS)


def test_what_was_written_is_read(file):
    tensors, facts = read_sealed(file)
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)
    assert load_file(file).keys() == TENSORS.keys()  # others can read it, too


def test_every_changed_byte_and_every_cut_is_noticed(file):
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1:])
        with pytest.raises(BadData, match="mine.safetensors"):
            read_sealed(file)
        file.write_bytes(whole[:at])
        with pytest.raises(BadData, match="mine.safetensors"):
            read_sealed(file)
    file.write_bytes(whole + b" ")
    with pytest.raises(BadData):
        read_sealed(file)


def test_other_files(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(1)}, other, {"digitfast": json.dumps({})})
    with pytest.raises(BadData, match="no checksum"):
        read_sealed(other)
    other.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadData):
        read_sealed(other)
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "absent")


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def full(*args):
        raise OSError("disk full")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_sealed(file, {}, {})
    assert file.read_bytes() == before
    assert [f.name for f in file.parent.iterdir()] == [file.name]
