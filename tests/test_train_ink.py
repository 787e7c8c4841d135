"""The tools that made the ink network: drawn scenes, and a training in little."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parent.parent / "tools" / "ink"))
import scenes as ink_scenes
import train as train_ink


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    ones = np.zeros((3, 28, 28), np.uint8)
    ones[:, 5:23, 12:15] = 255
    ones[1, 5:8, 8:20] = ones[2, 20:23, 8:20] = 255
    return ones


@pytest.fixture(scope="module")
def scenes(digits) -> np.ndarray:
    generators = [np.random.default_rng(i) for i in range(40)]
    return np.stack([np.stack(ink_scenes.scene(digits, generator)) for generator in generators])


def test_the_same_generator_gives_the_same_scene(digits, scenes):
    assert (np.stack(ink_scenes.scene(digits, np.random.default_rng(7))) == scenes[7]).all()


def test_ink_is_darker_than_what_is_around_it(scenes):
    darker = []
    for grey, ink in scenes.astype(float):
        near = (ink == 0) & (ink_scenes.ndimage.maximum_filter(ink, 15) > 200)
        if (ink > 200).sum() > 200 and near.any():
            darker.append(grey[ink > 200].mean() < grey[near].mean())
    assert len(darker) > 20 and np.mean(darker) > 0.95


def test_some_scenes_are_empty_and_most_hold_little_ink(scenes):
    inked = (scenes[:, 1] > 127).mean((1, 2))
    assert (inked == 0).any() and np.median(inked) < 0.2


def test_crops_keep_ink_in_its_place(scenes):
    torch.manual_seed(0)
    pool = torch.from_numpy(scenes).clone()
    pool[:, 1] = pool[:, 0]
    grey, ink = train_ink.batch_of(pool, torch.arange(4))
    assert grey.shape == ink.shape == (4, 1, train_ink.CROP, train_ink.CROP)
    again = train_ink.as_input((ink[:, 0] * 255).round().byte())
    assert torch.allclose(grey, again, atol=1e-3)


def test_the_right_ink_costs_least():
    ink = (torch.rand(2, 1, 32, 32) < 0.2).float()
    right = train_ink.loss_of((ink - 0.5) * 20, ink)
    wrong = train_ink.loss_of((0.5 - ink) * 20, ink)
    assert right < 0.01 < 1 < wrong


def test_training_lowers_the_loss(scenes, capsys):
    train_ink.train(torch.from_numpy(scenes[:16]), torch.from_numpy(scenes[16:20]), epochs=6)
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_training_goes_on_from_weights_and_ends_between(scenes, tmp_path):
    torch.manual_seed(1)
    first, images = train_ink.InkNet(), torch.from_numpy(scenes[:16])
    save_file(first.state_dict(), tmp_path / "first.safetensors")
    trained = train_ink.train(images, images[:4], epochs=2, start=tmp_path / "first.safetensors")
    moved = (trained.head[0].weight - first.head[0].weight).abs().max()
    assert 0 < moved < train_ink.LR_GO_ON  # a new network would be far from it
    other = train_ink.InkNet()
    wanted = (first.head[0].weight + other.head[0].weight) / 2
    assert torch.allclose(train_ink.between(first, other).head[0].weight, wanted)
