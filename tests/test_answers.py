import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from digitfast import RunNotFound, save_predictor
from digitfast.cli.network_commands import digit_line, number_lines
from digitfast.cli.networks import is_network, open_network
from digitfast.errors import BadSetting
from digitfast.inference.predictor import PACKED_NETWORK, Predictor
from digitfast.reading.answers import predict_pictures, read_pictures


@pytest.fixture
def pictures(digits, tmp_path):
    "A folder with two digits, dark on light, and a file between them that is no picture."
    folder = tmp_path / "my pictures"
    (folder / "deeper").mkdir(parents=True)
    for name, digit in (("a.png", 0), ("deeper/c.png", 6)):
        small = 255 - np.asarray(Image.open(digits / f"training/{digit}/0.png"))
        ink = np.kron(small, np.ones((8, 8), np.uint8))
        Image.fromarray(ink).save(folder / name)
    (folder / "b.png").write_text("no picture")
    (folder / "notes.txt").write_text("left alone")
    return folder


def test_one_bad_file_does_not_stop_the_others(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    answers = predict_pictures([pictures, tmp_path / "absent.png", tmp_path / "empty"])
    names = [a["file"].split("/")[-1] for a in answers]
    assert names == ["a.png", "b.png", "c.png", "absent.png", "empty"]
    assert [a.get("digit") for a in answers] == ["0", None, "6", None, None]
    assert [("error" in a) for a in answers] == [False, True, False, True, True]
    reasons = ("b.png", "No such file", "no pictures")
    for answer, reason in zip((answers[1], *answers[3:]), reasons, strict=True):
        assert reason in answer["error"]
    assert json.loads(json.dumps(answers)) == answers
    assert digit_line(answers[0]).endswith("%") and " 0 " in digit_line(answers[0])
    assert [a.get("text") for a in read_pictures([pictures])] == ["0", None, "6"]
    assert number_lines(read_pictures([pictures / "a.png"])[0]).split()[-2] == "0"


def test_a_name_with_a_null_byte_is_one_bad_file(pictures):
    answers = predict_pictures(["a\0b.png", pictures / "a.png"])
    assert "error" in answers[0] and answers[1]["digit"] == "0"


def test_as_they_are(digits):
    answer, = predict_pictures([digits / "training/0/0.png"], as_is=True)
    assert answer["digit"] == "0" and answer["probability"] == max(answer["probabilities"].values())


def test_figures_are_of_one_picture(pictures, tmp_path):
    read_pictures([pictures / "a.png"], boxes=tmp_path / "b.png", steps=tmp_path / "s.png")
    assert Image.open(tmp_path / "b.png").size == (224, 224)
    assert Image.open(tmp_path / "s.png").size[0] > 400
    for several in ([pictures], [pictures / "a.png", pictures / "deeper/c.png"]):
        with pytest.raises(BadSetting, match="one picture"):
            predict_pictures(several, steps=tmp_path / "s.png")


def test_networks_by_name(tmp_path, pictures):
    file = save_predictor(Predictor.packed(), tmp_path / "net.safetensors")
    assert is_network(file) and not is_network(pictures) and not is_network(pictures / "a.png")
    assert is_network(tmp_path / "absent.safetensors") and not is_network("absent", tmp_path)
    assert open_network() is Predictor.packed() and open_network().source == "mnist"
    assert open_network(file).threshold == open_network(PACKED_NETWORK).threshold
    with pytest.raises(RunNotFound, match="there is no run 'absent'"):
        open_network("absent", tmp_path)


def test_the_name_of_a_run_comes_before_the_pictures(run_cli, digits, pictures):
    fit = run_cli("fit", "--arch", "digitnet", "--source", digits, "--bs", 32, "--epochs", 8)
    assert fit[0] == 0
    as_trained = digits / "testing/0/30.png"  # white on black, as the training pictures are
    code, out, err = run_cli("predict", "digitnet", as_trained)
    assert (code, err) == (0, "") and "  0  " in out
    code, out, err = run_cli("read", "digitnet", pictures / "a.png")
    assert code == 0 and "a.png  0" in out
    code, out, err = run_cli("predict", "digitnet")
    assert code == 1 and "name pictures after it" in err


def test_other_files_of_a_folder_are_named_and_those_that_no_person_sees_are_not(pictures):
    for name in (".DS_Store", "Thumbs.db", "._a.png"):
        (pictures / name).write_text("left by an operating system")
    (pictures / "form.docx").write_text("a form")
    warning = "my pictures holds 2 other files, which are left out: form.docx, notes.txt$"
    with pytest.warns(UserWarning, match=warning):
        answers = predict_pictures([pictures])
    assert [a["file"].split("/")[-1] for a in answers] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("name", ["w.pth", "m.pt", "m.h5"])
def test_weights_of_other_programs_are_no_pictures(run_cli, pictures, tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    code, out, err = run_cli("predict", name, pictures / "a.png")
    assert (code, out) == (1, "") and f"{name} is not a network that digitfast can open" in err


def test_names_that_are_no_text_in_json(run_cli, pictures):
    strange = os.fsdecode(os.fsencode(pictures) + b"/\xff.png")
    os.rename(pictures / "a.png", strange)
    code, out, err = run_cli("predict", "--json", strange)
    assert (code, err) == (0, "")
    assert json.loads(out)[0]["file"] == strange


def test_figures_do_not_overwrite_the_picture_or_each_other(pictures, tmp_path):
    picture = pictures / "a.png"
    before = picture.read_bytes()
    with pytest.raises(BadSetting, match="a.png is named twice; .*a-drawn.png"):
        read_pictures([picture], boxes=picture)
    with pytest.raises(BadSetting, match="a.png is named twice"):
        predict_pictures([picture], steps=picture)
    with pytest.raises(BadSetting, match="x.png is named twice"):
        read_pictures([picture], boxes=tmp_path / "x.png", steps=tmp_path / "x.png")
    assert picture.read_bytes() == before


def test_as_they_are_unsure_answers_are_unsure(digits):
    predictor = replace(Predictor.packed(), threshold=1.1)
    answer, = predict_pictures([digits / "training/0/0.png"], predictor, as_is=True)
    assert (answer["answer"], answer["digit"], answer["guess"]) == ("unsure", None, "0")
