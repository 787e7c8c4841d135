import pickle
from hashlib import sha256

import pytest
import torch

from digitfast import BadData, BadSetting, RunNotFound, open_learner, save_learner


def test_saved_and_opened(trained, digits, tmp_path):
    file = save_learner(trained, tmp_path / "mine.pkl")
    assert [f.name for f in tmp_path.iterdir()] == ["mine.pkl"] and file.stat().st_size < 1_000_000
    again = open_learner(file, trust=True)
    with again.no_bar(), trained.no_bar():
        for image in list((digits / "testing/7").iterdir())[:3]:
            assert torch.equal(again.predict(image)[2], trained.predict(image)[2])


def test_a_failed_export_leaves_the_old_file(trained, tmp_path, monkeypatch):
    file = save_learner(trained, tmp_path / "mine.pkl")
    before = file.read_bytes()

    def half(path):
        path.write_bytes(b"half")
        raise OSError("disk full")
    monkeypatch.setattr(trained, "export", half)
    with pytest.raises(OSError, match="disk full"):
        save_learner(trained, file)
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_file_that_is_not_trusted_is_not_opened(trained, tmp_path):
    file = save_learner(trained, tmp_path / "mine.pkl")
    for known in (None, "0" * 64):
        message = f"{file} was not opened.*any code.*safetensors.*--trust.*trust=True"
        with pytest.raises(BadSetting, match=message):
            open_learner(file, known=known)
    known = sha256(file.read_bytes()).hexdigest()
    assert open_learner(file, known=known).dls.vocab == trained.dls.vocab


def test_what_is_no_learner(tmp_path):
    with pytest.raises(RunNotFound, match="absent.pkl"):
        open_learner(tmp_path / "absent.pkl")
    for content in (b"", b"text", pickle.dumps({"a": 1})):
        (tmp_path / "bad.pkl").write_bytes(content)
        with pytest.raises(BadData, match="bad.pkl"):
            open_learner(tmp_path / "bad.pkl", trust=True)
    torch.save({"a": 1}, tmp_path / "bad.pkl")
    with pytest.raises(BadData, match="bad.pkl cannot be opened as a fastai learner"):
        open_learner(tmp_path / "bad.pkl", trust=True)


def test_an_exported_learner_says_nothing_of_this_machine(digits, tmp_path):
    import pickletools
    import zipfile

    from digitfast import digit_dls, digitnet_learner
    learn = digitnet_learner(digit_dls(digits, bs=32, num_workers=0), path=tmp_path)
    learn.fit(1, 1e-3)
    learn.export("it.pkl")
    with zipfile.ZipFile(tmp_path / "it.pkl") as file:
        pickled = file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))
    texts = [arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str)]
    assert not [text for text in texts if "PosixPath" in text or "WindowsPath" in text]
    assert not [text for text in texts if text in (*digits.parts[1:], *tmp_path.parts[1:])]
    assert (tmp_path / "it.pkl").stat().st_size < 1e6


@pytest.mark.parametrize("content", [b"\x80\xff.", b"", b"cos\nsystm\n.", b"PK\x03\x04"])
def test_whatever_a_damaged_file_raises_is_one_error(tmp_path, content):
    (tmp_path / "p.pkl").write_bytes(content)
    with pytest.raises(BadData, match="p.pkl cannot be opened"):
        open_learner(tmp_path / "p.pkl", trust=True)
