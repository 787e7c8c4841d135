"Reading UNIPEN's characters and drawing them, on files made up here."
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest


def tool(name: str):
    "Return a module of tools/reader; its folder stays off the path, where tools/ink has a `train`."
    file = Path(__file__).parent.parent / "tools" / "reader" / f"{name}.py"
    spec = spec_from_file_location(name, file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = tool("render")
unipen = tool("unipen")

STROKES = """\
.COORD X Y T
.WRITER_ID ann
.PEN_DOWN
0 100 1
0 0 2
.PEN_UP
5 5 3
.PEN_DOWN
10 100 4
.COMMENT a remark of the scribe
20 100 5
.WRITER_ID ben
.PEN_DOWN
30 50 6
"""
LABELS = """\
.VERSION 1.0
.INCLUDE lab/strokes.dat
.SEGMENT CHARACTER 0-1 OK "5"
.SEGMENT CHARACTER 2 ? "1"
.SEGMENT CHARACTER 1:0-1:9 OK "7"
.SEGMENT CHARACTER 9 OK "8"
"""


@pytest.fixture
def folder(tmp_path):
    for path, text in (("data/1a/lab/a.dat", LABELS), ("include/lab/strokes.dat", STROKES)):
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path


def test_characters_have_their_strokes_and_writers(folder):
    five, one = unipen.read_characters(folder, "1a")
    assert (five.label, five.writer, five.name) == ("5", "lab/ann", "1a/lab/a.dat 0-1")
    assert [stroke.tolist() for stroke in five.strokes] == [
        [[0, -100], [0, 0]], [[10, -100], [20, -100]]]  # y grows upwards in the file
    assert (one.label, one.writer) == ("1", "lab/ben")


def test_a_file_that_includes_itself_or_one_outside_is_no_trap(folder):
    (folder / "include/lab/strokes.dat").write_text(
        ".INCLUDE lab/strokes.dat\n.INCLUDE ../data/1a/lab/a.dat\n" + STROKES)
    assert unipen.read_characters(folder, "1a")[0].label == "5"


def test_another_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="data/1a"):
        unipen.read_characters(tmp_path, "1a")


def test_drawings_are_in_mnists_form_and_differ(folder):
    strokes = unipen.read_characters(folder, "1a")[0].strokes
    rng = np.random.default_rng(0)
    drawings = np.stack([render.render(strokes, rng) for _ in range(20)])
    assert drawings.shape == (20, 28, 28) and drawings.dtype == np.uint8
    assert (drawings.max((1, 2)) > 100).all()
    assert len({drawing.tobytes() for drawing in drawings}) > 10
    again = render.render(strokes, np.random.default_rng(0))
    assert np.array_equal(again, drawings[0])
