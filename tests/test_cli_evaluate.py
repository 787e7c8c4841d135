"""`digitfast evaluate`."""
import re

import pytest
from PIL import Image, ImageDraw


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


@pytest.fixture
def folder(tmp_path):
    "A picture of one digit with its truth."
    page = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(page).line([(35, 30), (85, 30), (50, 95)], fill=0, width=7, joint="curve")
    (tmp_path / "mine").mkdir()
    page.save(tmp_path / "mine/7.png")
    (tmp_path / "mine/truth.tsv").write_text("set\tkind\ttruth\tfile\nsingle\tdrawing\t7\t7.png\n")
    return tmp_path / "mine"


def test_a_table_of_real_pictures(run_cli, folder):
    code, out, err = run_cli("evaluate", "--sets", folder)
    assert code == 0
    assert out.splitlines()[1].split() == ["all", "1", "100.00%", "100.00%", "0.00%", "0.00%"]


def test_a_network_may_be_named_before_the_pictures_or_after(run_cli, fitted, folder):
    tables = [run_cli("evaluate", *order)[1] for order in
              [("simple", "--sets", folder), ("--sets", folder, "simple")]]
    assert tables[0].startswith("one digit")
    assert tables[0] == tables[1]


@pytest.mark.parametrize("order", [("gone", "--sets"), ("--sets", "gone")])
def test_what_follows_sets_is_a_network_if_it_holds_no_truth(run_cli, order):
    code, out, err = run_cli("evaluate", *order)
    assert code == 1
    assert "'gone'" in err
    assert "a folder of pictures after --sets must hold a truth.tsv" in err
