import numpy as np
import pytest
import torch
from PIL import Image

from digitfast.data.images import FitSize, PILDigit
from digitfast.errors import BadImage

PIXELS = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)


@pytest.mark.parametrize("form", [
    PIXELS, PIXELS.astype(int), PIXELS / 255, PIXELS[None], PIXELS[..., None],
    np.stack([PIXELS] * 3, -1),
    torch.tensor(PIXELS), torch.tensor(PIXELS)[None] / 255, Image.fromarray(PIXELS),
    Image.fromarray(PIXELS).convert("RGB"),
], ids=str)
def test_every_form_gives_the_same_pixels(form):
    digit = PILDigit.create(form)
    assert isinstance(digit, PILDigit) and digit.mode == "L"
    assert (np.asarray(digit) == PIXELS).all()


def test_sixteen_bits(tmp_path):
    Image.fromarray(PIXELS.astype(np.uint16) * 257).save(tmp_path / "16.png")
    assert (np.asarray(PILDigit.create(tmp_path / "16.png")) == PIXELS).all()


def test_files_and_bytes(tmp_path):
    file = tmp_path / "a digit é.png"
    Image.fromarray(PIXELS).save(file)
    for form in (file, str(file), file.read_bytes()):
        assert (np.asarray(PILDigit.create(form)) == PIXELS).all()


@pytest.mark.parametrize("array", [
    np.zeros((0, 28)), np.zeros(5), np.zeros((2, 28, 28)), np.full((28, 28), 256),
    np.full((28, 28), -1), np.full((28, 28), 1.5), np.full((28, 28), np.nan),
    np.full((28, 28), "a")], ids=lambda a: f"{a.dtype}{a.shape}")
def test_bad_arrays(array):
    with pytest.raises(BadImage, match="allowed are"):
        PILDigit.create(array)


def test_bad_files(tmp_path):
    cut = tmp_path / "cut.png"
    Image.fromarray(PIXELS).save(cut)
    cut.write_bytes(cut.read_bytes()[:60])
    text = tmp_path / "text.png"
    text.write_text("no image")
    for file in (cut, text, tmp_path / "absent.png", tmp_path):
        with pytest.raises(BadImage, match=str(file)):
            PILDigit.create(file)
    with pytest.raises(BadImage, match="8 bytes"):
        PILDigit.create(b"no image")


def test_fit_size_keeps_proportions_and_leaves_fitting_pictures_alone():
    fit = FitSize(28)
    same = PILDigit.create(PIXELS)
    assert fit(same) is same
    wide = np.asarray(fit(PILDigit.create(np.full((50, 100), 255, np.uint8))))
    assert wide.shape == (28, 28)
    assert (wide[7:21] == 255).all()
    assert not wide[:7].any()
    assert not wide[21:].any()
