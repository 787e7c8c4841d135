"""`digitfast evaluate`."""
import re

import pytest
from PIL import Image


@pytest.fixture
def accuracy(fitted):
    return re.search(r"accuracy (\S+%)", fitted).group(1)


def test_a_run_has_the_accuracy_of_its_training(run_cli, accuracy):
    code, out, err = run_cli("evaluate", "simple")
    assert code == 0
    assert f"accuracy {accuracy}" in out
    assert "120 images" in out
    assert "actual \\ predicted" in out


def test_a_trusted_pickle_is_evaluated_on_what_it_was_trained_on(run_cli, accuracy, digits):
    out = run_cli("evaluate", "runs/simple/learner.pkl", "--trust")[1]
    assert f"accuracy {accuracy}" in out
    assert str(digits / "testing") in out


def test_a_pickle_outside_of_a_run_is_evaluated_on_a_source(run_cli, accuracy, digits):
    assert run_cli("export", "simple", "--to", "mine.pkl")[0] == 0
    out = run_cli("evaluate", "mine.pkl", "--trust", "--source", digits / "testing")[1]
    assert out.startswith(f"accuracy {accuracy}")


def test_pictures_in_which_nothing_is_found_are_counted(run_cli, tmp_path):
    for digit in "01":
        (tmp_path / "blank" / digit).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (100, 100), 255).save(tmp_path / f"blank/{digit}/{i}.png")
    code, out, err = run_cli("evaluate", "--source", "blank")
    assert code == 0
    assert out.startswith("accuracy 0.00% (95 % interval")
    refused = "refused (unsure, or no digit) 100.00%"
    assert f"right and sure 0.00%, wrong and sure 0.00%, {refused}" in out
    lines = [line.split() for line in out.splitlines()]
    assert lines[4][-1] == "none"
    assert lines[5] == ["0", *["0"] * 10, "2"]
