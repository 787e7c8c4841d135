import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from digitfast.ink_net import InkNet, as_input, ink_chances


def paper_with(draw_on, size=(320, 256), level=220) -> np.ndarray:
    image = Image.new("L", size, level)
    draw_on(ImageDraw.Draw(image))
    return np.asarray(image)


def test_one_logit_a_pixel():
    net = InkNet().eval()
    with torch.inference_mode():
        assert net(torch.zeros(2, 1, 64, 96)).shape == (2, 1, 64, 96)


def test_light_that_is_dimmed_hardly_changes_the_input():
    grey = torch.tensor([[[200, 100], [50, 25]]], dtype=torch.uint8)
    ratio = as_input(grey)[0, 0, 0, 0] - as_input(grey)[0, 0, 0, 1]
    assert ratio == pytest.approx(np.log(210 / 110), abs=1e-5)
    assert as_input(grey).mean().abs() < 1e-6


def test_a_pen_stroke_is_ink_and_a_ruled_line_is_not():
    curve = [(120, 60), (180, 70), (130, 120), (180, 150), (120, 200)]
    grey = paper_with(lambda d: ([d.line((0, y, 320, y), fill=170, width=2) for y in range(20, 256, 36)],
                                 d.line(curve, fill=40, width=8, joint="curve")))
    truth = paper_with(lambda d: d.line(curve, fill=255, width=8, joint="curve"), level=0) > 0
    found = ink_chances(grey) > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.75
    assert found[:, :90].mean() < 0.002 and found[:, 220:].mean() < 0.002  # lines and nothing else


@pytest.mark.parametrize("shape", [(1, 1), (33, 500), (64, 64)])
def test_any_size(shape):
    chances = ink_chances(np.full(shape, 200, np.uint8))
    assert chances.shape == shape and chances.dtype == np.float32
    assert chances.min() >= 0 and chances.max() < 0.5
