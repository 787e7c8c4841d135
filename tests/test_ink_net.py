import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from digitfast.models.ink_net import COARSEST, InkNet, as_input
from digitfast.reading import ink_network as module
from digitfast.reading.ink_network import ink_chances
from digitfast.synthetic.photos import synthetic_photo


def paper_with(draw_on, size=(320, 256), level=220) -> np.ndarray:
    image = Image.new("L", size, level)
    draw_on(ImageDraw.Draw(image))
    return np.asarray(image)


def test_one_logit_per_pixel():
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

    def draw(d):
        for y in range(20, 256, 36):
            d.line((0, y, 320, y), fill=170, width=2)
        d.line(curve, fill=40, width=8, joint="curve")
    grey = paper_with(draw)
    truth = paper_with(lambda d: d.line(curve, fill=255, width=8, joint="curve"), level=0) > 0
    found = ink_chances(grey) > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.75
    assert found[:, :90].mean() < 0.002 and found[:, 220:].mean() < 0.002  # lines and nothing else


@pytest.mark.parametrize("shape", [(1, 1), (33, 500), (64, 64)])
def test_any_size(shape):
    chances = ink_chances(np.full(shape, 200, np.uint8))
    assert chances.shape == shape and chances.dtype == np.float32
    assert chances.min() >= 0 and chances.max() < 0.5


def test_onnxruntime_finds_the_same_ink(digits):
    assert module.COARSEST == COARSEST
    rng = np.random.default_rng(0)
    images = np.stack([np.asarray(Image.open(digits / f"testing/{digit}/30.png"))
                       for digit in range(10)])
    torchs = module._of_torch()
    onnxruntimes = module._of_onnxruntime()
    for shape in ((512, 384), (64, 96), (320, 320)):
        photo = synthetic_photo(images[rng.permutation(10)[:3]], rng).image
        grey = np.array(photo.convert("L").resize(shape))[None]
        found = onnxruntimes(grey)
        wanted = torchs(grey)
        assert np.abs(found - wanted).max() < 1e-3
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert ((found > 0.5) != (wanted > 0.5)).sum() <= 2 and (wanted > 0.5).any()


@pytest.mark.parametrize("first, chosen", [("numpy", "_of_onnxruntime"), ("torch", "_of_torch")])
def test_torch_only_where_it_is_there_already(first, chosen):
    code = (f"import sys, {first}, digitfast.reading.ink_network as ink; "
            f"ink._of_onnxruntime = lambda: '_of_onnxruntime'; "
            f"ink._of_torch = lambda: '_of_torch'; print(ink._network(), 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [chosen, str(first == "torch")]
