"""`digitfast export`, and what the exported files answer."""
import json
import re

import pytest
from conftest import is_one_line
from fastai.learner import load_learner


@pytest.fixture
def accuracy(fitted):
    return re.search(r"accuracy (\S+%)", fitted).group(1)


def test_a_pickle_for_fastai(run_cli, fitted, digits, tmp_path):
    picture = digits / "testing/4/30.png"
    assert run_cli("export", "simple", "--to", "mine.pkl") == (0, "mine.pkl\n", "")
    assert load_learner(tmp_path / "mine.pkl").predict(picture)[0] == "4"
    assert run_cli("predict", "mine.pkl", "--trust", picture)[0] == 0


def test_no_file_is_overwritten(run_cli, fitted):
    assert run_cli("export", "simple", "--to", "mine.pkl")[0] == 0
    code, out, err = run_cli("export", "simple", "--to", "mine.pkl")
    assert code == 1
    assert "mine.pkl exists" in err


@pytest.mark.parametrize("command", [("predict", "x.png"), ("read", "x.png"), ("evaluate",)])
def test_a_pickle_is_not_opened_without_trust(run_cli, fitted, command):
    assert run_cli("export", "simple", "--to", "mine.pkl")[0] == 0
    code, out, err = run_cli(command[0], "mine.pkl", *command[1:])
    assert code == 1
    assert not out
    assert is_one_line(err)
    assert "mine.pkl was not opened" in err
    assert "--trust" in err


def test_safetensors_is_the_default(run_cli, fitted):
    assert run_cli("export", "simple") == (0, "simple.safetensors\n", "")


@pytest.mark.parametrize("file", ["mine.safetensors", "mine.onnx"])
def test_a_file_answers_as_its_run(run_cli, accuracy, digits, file):
    picture = digits / "testing/4/30.png"
    answer, = json.loads(run_cli("predict", "simple", "--json", picture)[1])
    assert run_cli("export", "simple", "--to", file) == (0, f"{file}\n", "")
    assert f"accuracy {accuracy}" in run_cli("evaluate", file)[1]
    again, = json.loads(run_cli("predict", file, "--json", picture)[1])
    assert again["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-4)


def test_int8_prints_both_accuracies(run_cli, accuracy):
    code, out, err = run_cli("export", "simple", "--to", "small.onnx", "--int8")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"small.onnx\nfloat32  accuracy {accuracy} on 120 test images\n"
                        r"int8     accuracy \d+\.\d\d% on 120 test images\n", out)
