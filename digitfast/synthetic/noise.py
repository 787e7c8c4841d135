"""Images of grain, clouds, gratings and specks."""
import math

import numpy as np
from scipy import ndimage

from digitfast.data.mnist_form import SIDE


def noise(rng: np.random.Generator) -> np.ndarray:
    """Return an image without a mark: noise, patterns, patches, specks or nothing.

    At times all of it is in MNIST's box of 20 pixels.
    """
    pattern = _PATTERNS[rng.integers(len(_PATTERNS))](rng)
    image = np.clip(pattern, 0, 1) * rng.uniform(0.3, 1)
    if rng.random() < 0.3:
        image[[*range(4), *range(24, SIDE)]] = 0
        image[:, [*range(4), *range(24, SIDE)]] = 0
    return (image * 255).round().astype(np.uint8)


def _grain(rng: np.random.Generator) -> np.ndarray:
    "Return independent pixels, in greys or in black and white."
    image = rng.random((SIDE, SIDE))
    return image if rng.random() < 0.5 else (image < rng.uniform(0.03, 0.6)) * 1.0


def _clouds(rng: np.random.Generator) -> np.ndarray:
    "Return smooth noise, soft or with edges, coarse or fine, like spreading ink and paper's grain."
    image = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), rng.uniform(0.6, 2.5, 2))
    return 0.5 + rng.uniform(-0.3, 0.3) + image / image.std() * rng.choice([0.2, 0.4, 3])


def _grating(rng: np.random.Generator) -> np.ndarray:
    "Return waves of three periods or more, at times two of them crossed."
    ys, xs = np.mgrid[:SIDE, :SIDE] / SIDE
    angles = rng.uniform(0, 2 * math.pi, 2)
    rates = rng.uniform(3, 11, 2)
    waves = [np.sin(2 * math.pi * rate * (xs * math.cos(a) + ys * math.sin(a)) + 9 * a)
             for a, rate in zip(angles, rates, strict=True)]
    return 0.5 + (waves[0] if rng.random() < 0.6 else waves[0] * waves[1]) * rng.choice([0.5, 2])


def _patches(rng: np.random.Generator) -> np.ndarray:
    "Return filled rectangles, none of them slim and upright."
    image = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(1, 5)):
        wide = rng.integers(7, 22)
        high = rng.integers(2, wide + 4)
        left = rng.integers(0, SIDE - wide)
        top = rng.integers(0, SIDE - high)
        image[top:top + high, left:left + wide] = rng.uniform(0.3, 1)
    return image


def _ramp(rng: np.random.Generator) -> np.ndarray:
    "Return light from one side, or the same grey everywhere."
    ys, xs = np.mgrid[:SIDE, :SIDE] / SIDE
    return rng.random() + rng.uniform(-1, 1) * xs + rng.uniform(-1, 1) * ys


def _specks(rng: np.random.Generator) -> np.ndarray:
    "Return nothing, or a few specks of dirt."
    image = rng.random((SIDE, SIDE)) * rng.choice([0, 0.15])
    for y, x in rng.integers(1, SIDE - 2, (rng.integers(0, 7), 2)):
        image[y:y + rng.integers(1, 4), x:x + rng.integers(1, 4)] = rng.uniform(0.3, 1)
    return image


_PATTERNS = [_grain, _clouds, _clouds, _grating, _patches, _ramp, _specks, _specks]
