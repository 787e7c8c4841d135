from dataclasses import fields
from pathlib import Path

import pytest

import digitfast
from digitfast.errors import BadSetting, DataNotFound, UnknownName
from digitfast.runs.settings import PACKED_SETTINGS, named_runs, read_settings, write_settings
from digitfast.training.recipe import Recipe


@pytest.fixture
def ini(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "settings.ini").write_text(text)
        return tmp_path / "settings.ini"
    return write


def test_the_named_runs_of_the_article(ini):
    assert set(named_runs()) >= {"digitnet", "article-pytorch", "article-resnet18", "article-basic"}
    for name in named_runs():
        assert set(read_settings(name)) <= {setting.name for setting in fields(Recipe)}
    assert read_settings("article-pytorch") == {
        "arch": "article", "opt": "sgd", "lr": 0.005, "mom": 0.8, "bs": 128, "schedule": "constant",
        "label_smoothing": 0.0, "epochs": 20}
    root = Path(digitfast.__file__).parent.parent / "settings.ini"
    assert root.read_text() == PACKED_SETTINGS.read_text()


def test_values_get_their_parameters_types(ini):
    ini("[mine]\narch = x\nepochs = 3\nlr = 1e-3\nwd =\n")
    assert read_settings("mine") == {"arch": "x", "epochs": 3, "lr": 0.001, "wd": None}
    assert "article-basic" in named_runs()  # the bundled ones are there too


def test_an_own_run_wins_over_the_packed_one(ini):
    ini("[article-basic]\nepochs = 3\n")
    assert read_settings("article-basic") == {"epochs": 3}


def test_written_settings_are_read_again(tmp_path):
    values = {"arch": "100%", "epochs": 2, "lr": 1 / 3, "wd": None}
    write_settings(tmp_path / "s.ini", "mine", values)
    assert read_settings(path=tmp_path / "s.ini") == values


@pytest.mark.parametrize("text, error, message", [
    ("[mine]\nepoch = 3\n", UnknownName, "'epoch'. Did you mean epochs"),
    ("[mine]\nepochs = three\n", BadSetting, "epochs in .*type int, not 'three'"),
    ("[mine]\nepochs = 1.5\n", BadSetting, "epochs in .*type int, not '1.5'"),
    ("[other]\n", UnknownName, "unknown run 'mine'.*other"),
    ("epochs = 3\n", BadSetting, "not a settings file"),
    ("[mine]\n[mine]\n", BadSetting, "not a settings file"),
])
def test_mistakes(ini, text, error, message):
    with pytest.raises(error, match=message):
        read_settings("mine", ini(text))


def test_which_run(ini, tmp_path):
    path = ini("[a]\n[b]\n")
    with pytest.raises(BadSetting, match="a, b: choose one with --run"):
        read_settings(path=path)
    with pytest.raises(DataNotFound, match="absent.ini"):
        read_settings("a", tmp_path / "absent.ini")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    file = tmp_path / "windows.ini"
    file.write_text("[mine]\nepochs = 3\n", encoding="utf-8-sig")
    assert read_settings(path=file) == {"epochs": 3}
