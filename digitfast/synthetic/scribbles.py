"""Scribbles as people draw them."""
import math

import numpy as np

from digitfast.synthetic.pen import bowed, drawn, posed, smooth


def scribble(rng: np.random.Generator) -> np.ndarray:
    """Return lines that mean nothing, as ink of 0 to 1.

    They are tangles, wanderings, zigzags, spirals, loops, hatching and blobs.
    """
    return _SCRIBBLES[rng.integers(len(_SCRIBBLES))](rng)


def _tangle(rng: np.random.Generator) -> np.ndarray:
    "Return a line, round or sharp, that crosses itself again and again."
    points = rng.uniform(0, 9, (rng.integers(10, 18), 2))
    return drawn([smooth(points) if rng.random() < 0.7 else points], rng, (0.04, 0.1))


def _wandering(rng: np.random.Generator) -> np.ndarray:
    "Return a line that keeps turning and goes nowhere, open or over itself, sharp or round."
    n = int(rng.integers(12, 45))
    sharpest = rng.uniform(1.7, math.pi)  # most radians that it turns by; less would be a bow
    heading = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.uniform(-sharpest, sharpest, n))
    steps = rng.gamma(2, 1, n)[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    points = np.cumsum(steps, axis=0)
    points /= np.ptp(points, axis=0)  # a slim one would be a 1
    curve = smooth(points) if rng.random() < 0.4 else points
    return drawn(posed([curve], rng, (0.65, 1.5), 0.1), rng, (0.02, 0.1))


def _zigzag(rng: np.random.Generator) -> np.ndarray:
    "Return a line to and fro, at least five times; very often, and it is a smear."
    n = int(rng.choice([rng.integers(6, 10), rng.integers(10, 20)]))
    points = np.stack([np.linspace(0, rng.uniform(7, 14), n), np.arange(n) % 2 * 9.0], axis=1)
    points += rng.normal(0, 0.6, points.shape)
    return drawn(
        posed([smooth(points) if rng.random() < 0.6 else points], rng, (0.8, 1.2), 0.1, 180),
        rng, (0.04, 0.1))


def _spiral(rng: np.random.Generator) -> np.ndarray:
    "Return a spiral of two and a half turns or more: with fewer it would be a 6 or a 9."
    t = np.linspace(0, 2 * math.pi * rng.uniform(2.5, 4.5), 90)
    along = t ** rng.uniform(0.7, 1.2) * np.exp(
        1j * (t * rng.choice([-1, 1]) + rng.uniform(0, 2 * math.pi)))
    return drawn(posed([np.stack([along.real, along.imag], axis=1)], rng, (0.7, 1.3)),
                 rng, (0.04, 0.08))


def _loops(rng: np.random.Generator) -> np.ndarray:
    "Return a chain of three loops or more, as someone tries a pen, or a long wave."
    t = np.linspace(0, 2 * math.pi * rng.uniform(3, 6), 120)
    wide = rng.choice([0, rng.uniform(1, 1.6)])
    curve = np.stack([t * rng.uniform(0.25, 0.6) + wide * np.cos(t),
                      rng.uniform(1, 2.5) * np.sin(t)], axis=1)
    return drawn(posed([curve], rng, (0.8, 1.2), turn=40), rng, (0.04, 0.08))


def _parallels(rng: np.random.Generator) -> np.ndarray:
    "Return two or more lines side by side, at times with others across."
    def lines(n: int) -> list[np.ndarray]:
        starts = np.stack([np.linspace(0, 9, n), np.zeros(n)], axis=1) + rng.normal(0, 0.3, (n, 2))
        ends = starts + rng.normal(0, 0.4, (n, 2)) + (0, rng.uniform(6, 11))
        return [smooth(bowed(np.stack(pair), rng)) for pair in zip(starts, ends, strict=True)]

    n = rng.integers(2, 7)
    curves = lines(n)
    if n > 2 and rng.random() < 0.5:
        curves += [curve[:, ::-1] for curve in lines(rng.integers(2, 6))]
    return drawn(posed(curves, rng, (0.8, 1.2), 0.1, 180), rng, (0.04, 0.09))


def _bar(rng: np.random.Generator) -> np.ndarray:
    "Return a long stroke that is almost level."
    return drawn(posed([smooth(bowed(np.array([[0, 0], [9, 0]]), rng))], rng, turn=20),
                 rng, (0.06, 0.3))


def _flower(rng: np.random.Generator) -> np.ndarray:
    "Return a closed line with three bulges or more, often filled: a blot."
    t = np.linspace(0, 2 * math.pi, 60)
    bulges = rng.integers(3, 8)
    radius = (1 + rng.uniform(0.25, 0.6) * np.cos(bulges * t + rng.uniform(0, 6))
              + rng.normal(0, 0.1) * np.sin(2 * t))
    curve = np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1)
    return drawn(posed([curve], rng, (0.7, 1.3)), rng, (0.05, 0.1), filled=rng.random() < 0.4)


def _blob(rng: np.random.Generator) -> np.ndarray:
    "Return a filled patch, round or angular."
    angles = np.arange(8) * math.pi / 4 + rng.uniform(-0.35, 0.35, 8)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.7, 1, (8, 1))
    points = np.concatenate([points, points[:1]])
    return drawn(posed([smooth(points) if rng.random() < 0.6 else points], rng, (0.8, 1.3)),
                 rng, filled=True)


_SCRIBBLES = [*[_wandering] * 5, _tangle, _tangle, _zigzag, _zigzag, _spiral, _loops,
              _parallels, _parallels, _bar, _flower, _blob]
