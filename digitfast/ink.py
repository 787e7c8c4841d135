"""A grey picture of paper with writing → the ink alone: polarity, uneven light, paper lines and noise."""
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from digitfast.errors import BadSetting
from digitfast.paper_lines import without_lines

INKS = ("auto", "dark", "light")  # what a picture's ink can be, against its paper
SMALL = 64  # pixels: below this side a picture is one digit cut out, without lines or uneven light
LEAST = 0.06  # contrast of the faintest ink that is looked for, as a part of the paper's brightness
SHARP = 0.6  # part of its contrast that ink in half-shade gains or loses within a hundredth of the picture's side
EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner belong together


@dataclass(frozen=True)
class Ink:
    "The ink of a picture, as far as it has any."
    density: np.ndarray  # float32 `[h, w]`, 0 = paper to 1 = ink
    dark: bool  # whether the ink is darker than the paper
    stages: dict[str, np.ndarray] = field(default_factory=dict)  # name: uint8 `[h, w]`, 255 = ink, for showing


def find_ink(
    grey: np.ndarray,  # uint8 `[h, w]`
    ink: str = "auto",  # dark or light, against its paper; auto: whichever the picture shows
) -> Ink:
    """The ink of a picture: what stands out from the paper around it, is no line of the paper, and is no noise.

    Ink is taken to be thinner than a quarter of the picture. Raises: `BadSetting` for another `ink`.
    """
    if ink not in INKS:
        raise BadSetting(f"ink={ink!r}: one of {', '.join(INKS)} is wanted")
    if min(grey.shape) < SMALL:
        return _small_ink(grey, ink)
    dark = ink == "dark" or (ink == "auto" and _is_dark(grey))
    contrast, edges, shaded = _contrast(grey, dark)
    stages = {"contrast": _bytes(contrast / max(0.25, contrast.max()))}
    noise, calm = _noise(contrast)
    contrast, lines = without_lines(contrast, calm)
    density = _density(contrast, noise, calm, edges | lines, shaded)
    return Ink(density, dark, {**stages, "ink": _bytes(density)})


def _bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def _small_ink(grey: np.ndarray, ink: str) -> Ink:
    "The ink of a cut-out digit: its greys between those of the paper, which holds most of it and of its rim, and ink."
    grey = grey.astype(np.float32)
    darkest, lightest = float(grey.min()), float(grey.max())
    if lightest - darkest < 255 * LEAST:
        return Ink(np.zeros_like(grey), ink != "light")
    bright = (grey - darkest) / (lightest - darkest)
    rim = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    dark = ink == "dark" or (ink == "auto" and float((bright > 0.5).mean() + (rim > 0.5).mean()) > 1)
    values = 1 - bright if dark else bright
    paper = float(np.median(values[values < 0.5]))
    density = np.clip((values - paper) / (1 - paper), 0, 1)
    return Ink(density, dark, {"ink": _bytes(density)})


def _contrast(grey: np.ndarray, dark: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much darker (or lighter) each pixel is than the paper around it, as a part of that, less the paper's own
    grain; where the paper ends; and where its brightness changes."""
    h, w = grey.shape
    step = max(1, max(h, w) // 400)
    light = grey if dark else 255 - grey
    small = ndimage.median_filter(np.asarray(Image.fromarray(light).reduce(step)), 3)
    window = max(3, min(small.shape) // 4) | 1
    around = np.pad(small, window, mode="edge")  # what lies along the rim, as a desk around the paper, is no ink
    paper = ndimage.grey_closing(around, (window, window))[window:-window, window:-window].astype(np.float32)
    paper = ndimage.gaussian_filter(paper, 1.5)
    darkest, lightest = ndimage.minimum_filter(paper, 7), ndimage.maximum_filter(paper, 7)
    edges, shaded = (np.asarray(Image.fromarray(lightest > np.maximum(part * darkest, darkest + levels)).resize((w, h)))
                     for part, levels in ((1.4, 24), (1.06, 6)))
    paper = np.asarray(Image.fromarray(paper).resize((w, h), Image.Resampling.BILINEAR))
    difference = paper - light
    brightness = np.maximum(paper, 48) if dark else np.float32(160)  # light on dark adds, it is not reflected
    contrast = difference / brightness
    return contrast - max(0.0, float(np.median(contrast[::3, ::3]))), edges, shaded


def _noise(contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the contrast that the grain of the paper and the camera's noise hardly ever reach: around it, and
    in the calmest place near it, where no ink covers the paper."""
    h, w = contrast.shape
    block = max(8, min(h, w) // 20)
    rows, columns = h // block, w // block
    blocks = contrast[:rows * block, :columns * block].reshape(rows, block, columns, block)[:, ::2, :, ::2]
    blocks = blocks.transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    low, high = np.quantile(blocks, [0.1, 0.4], axis=2)
    here = ndimage.median_filter((high - low) / 1.03, 3)
    maps = [Image.fromarray(d.astype(np.float32)).resize((w, h), Image.Resampling.BILINEAR)
            for d in (here, ndimage.minimum_filter(here, 7))]
    return tuple(np.maximum(LEAST, 6 * np.asarray(m)) for m in maps)


def _is_dark(grey: np.ndarray) -> bool:
    """Whether ink is what is darker than its surroundings, and not what is lighter.

    Both are measured in windows of several sizes. A stroke shows in small ones, what lies between and inside strokes
    only in larger ones: so the small ones count for more.
    """
    small = np.asarray(Image.fromarray(grey).reduce(max(1, max(grey.shape) // 400)), np.float32)
    grain = small - ndimage.median_filter(small, 3)
    least = max(255 * LEAST, 6 * 1.48 * float(np.median(np.abs(grain))))
    amount = 0.0
    for window in (3, 5, 9, 17, 33, 65):
        darker = ndimage.grey_closing(small, (window, window), mode="nearest") - small
        lighter = small - ndimage.grey_opening(small, (window, window), mode="nearest")
        amount += float(darker[darker > least].sum() - lighter[lighter > least].sum()) / window**2
    return amount >= 0


def _density(contrast: np.ndarray, noise: np.ndarray, calm: np.ndarray, no_ink: np.ndarray,
             shaded: np.ndarray) -> np.ndarray:
    "0..1 from `contrast`: each connected piece of ink is compared with its own darkest parts."
    density = np.zeros_like(contrast)
    values = contrast[contrast > noise]
    if not len(values):
        return density
    middle = _otsu(values)
    strong = np.maximum(noise, (middle + noise) / 2)
    mask = contrast > 0.6 * np.maximum(calm, (middle + calm) / 2)
    pieces = ndimage.label(mask, EIGHT)[0][mask]
    values = contrast[mask]
    n = pieces.max() + 1
    sizes = np.bincount(pieces, minlength=n).clip(1)
    peaks = np.zeros(n, np.float32)
    np.maximum.at(peaks, pieces, values)
    core = values > peaks[pieces] / 2
    darkness = np.bincount(pieces[core], values[core], n) / np.bincount(pieces[core], minlength=n).clip(1)
    ink = np.bincount(pieces, values > strong[mask], n) > 0
    ink &= np.bincount(pieces, no_ink[mask], n) < 0.7 * sizes  # else it is what is left of a line or of an edge
    rises = np.zeros(n, np.float32)
    np.maximum.at(rises, pieces, _rise(contrast)[mask])
    in_shade = np.bincount(pieces, shaded[mask], n) > 0.4 * sizes
    ink &= rises > np.where(in_shade, SHARP, SHARP / 2) * peaks  # else it is a shadow's edge
    density[mask] = np.where(ink[pieces], np.clip(values / darkness[pieces].clip(1e-6), 0, 1), 0)
    return density


def _rise(contrast: np.ndarray) -> np.ndarray:
    "How much `contrast` changes around each pixel, over a hundredth of the picture's side."
    smooth = ndimage.uniform_filter(contrast, 3)
    reach = max(2, max(contrast.shape) // 100)
    rises = [np.abs(smooth - ndimage.shift(smooth, shift, order=0, mode="nearest"))
             for shift in ((0, reach), (0, -reach), (reach, 0), (-reach, 0))]
    return np.maximum.reduce(rises)


def _otsu(values: np.ndarray) -> float:
    "The threshold that parts `values` best into two groups (Otsu, 1979)."
    counts, edges = np.histogram(values, 128)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / total - sums)**2 / (below * (total - below))
    return float(centres[np.nanargmax(np.where(np.isfinite(between), between, -1))])
