import base64
import io

import numpy as np
import pytest
from PIL import Image

from digitfast.report.markup import (
    as_text,
    facts_table,
    interval_text,
    note,
    percent,
    png_address,
    rows_table,
    seconds_text,
)

BAD = '<script>alert("1")</script>'


@pytest.mark.parametrize("made", [as_text(BAD), note(BAD), rows_table([BAD], [[BAD]]), facts_table({BAD: BAD})])
def test_what_is_not_ours_is_text(made):
    assert "<script" not in made and "&lt;script&gt;" in made and 'alert("' not in made


def test_text_is_one_line_that_prints():
    assert as_text("a\nb\x1b[1m\u202e") == "&#x27;a\\nb\\x1b[1m\\u202e&#x27;"
    assert as_text(3) == "3" and as_text("é 数") == "é 数"


def test_numbers():
    assert percent(0.9947) == "99.47\u00a0%" and percent(1, 1) == "100.0\u00a0%"
    assert interval_text(0.99312, 0.99591) == "95 % interval 99.31 to 99.59 %"
    assert seconds_text(3.14) == "3.1 s" and seconds_text(600) == "10.0 min"
    assert "–" in facts_table({"wd": None})


def test_an_image_is_in_its_address():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    head, data = png_address(pixels).split(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == pixels).all()
