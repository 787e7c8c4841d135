"""A grey picture of paper with writing → the ink alone, without paper, shadows, ruled lines and what lies around."""
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import scipy  # scipy.ndimage comes when it is first used: it takes longer than an answer
from PIL import Image

from digitfast.errors import BadSetting
from digitfast.files import PACKED
from digitfast.inference.onnx_network import open_session
from digitfast.reading.pieces import INKED

INK_NET = PACKED / "ink.onnx"  # the network of models/ink_net.py, for where there is no torch
COARSEST = 32  # pixels: the network takes sides that are multiples of this
INKS = ("auto", "dark", "light", "drawing")  # what a picture's ink can be, against its paper
MIDDLE = 110  # grey of a picture that is neither light nor dark
CLEAR = 2.7  # times as much that is light as that is dark, on a light picture: its ink is light
SMALL = 64  # pixels: below this side a picture is one digit cut out, without lines or uneven light
LEAST = 0.06  # contrast of the faintest ink that is looked for, as a part of the paper's brightness
AFAR = 512 * 384  # pixels of a picture that is looked at from afar
SURE = 0.9  # of the surest ink of a picture, that a piece has somewhere
FAINT = 0.003  # of ink from afar, where there is some from near by: the grain of wood shows only there
MARGIN = 32  # pixels around ink, from afar
LONGEST = 16  # stroke of a digit, in its widths
SEEN = 5  # pixels: strokes that look narrower may be any width below, as the network makes them 4 pixels wide at least
STROKE = 8  # pixels: how wide strokes are to be in the end, if they are not between that and twice as much before


@dataclass(frozen=True)
class Ink:
    "The ink of a picture, as far as it has any."
    density: np.ndarray  # float32 `[h, w]`, 0 = paper to 1 = ink
    dark: bool  # whether the ink is darker than the paper


def find_ink(
    grey: np.ndarray,  # uint8 `[h, w]`
    ink: str = "auto",  # dark or light, against its paper; auto: whichever the picture shows; drawing: see below
) -> Ink:
    """The ink of a picture, as far as `ink_chances` tells it from paper, its lines, shadows, and what lies around.

    Of a "drawing", as a program makes it on even paper, and of a picture below 64 pixels, all that stands out from
    the paper is ink, the more of it the more it does.
    Raises: `BadSetting` for another `ink`.
    """
    if ink not in INKS:
        raise BadSetting(f"ink must be one of {', '.join(INKS)}, not {ink!r}")
    if ink == "drawing" or min(grey.shape) < SMALL:
        return _even_ink(grey, ink)
    dark = ink == "dark" or (ink == "auto" and _is_dark(grey))
    return Ink(_at_good_scale(grey if dark else 255 - grey), dark)


def _at_good_scale(grey: np.ndarray) -> np.ndarray:
    """The ink of a picture, dark on light: looked at from afar, then from where strokes are neither thin nor wide.

    From near by it is looked at only around what there is a trace of from afar, unless that comes to nothing.
    """
    scale = min(1.0, math.sqrt(AFAR / grey.size))
    afar = _at_scale(grey, scale)
    ink = np.zeros(grey.shape, np.float32)
    traces = _around(afar >= FAINT)
    if traces:
        part = tuple(slice(round(side.start / scale), round(side.stop / scale)) for side in traces)
        near = _from_near_by(grey[part], _sure(afar)[traces], scale)
        near = _pieces_with(near, _resized(afar[traces], near.shape), FAINT)
        ink[part] = _resized(near, ink[part].shape)
    if scale < 1 and not (ink > INKED).any():
        return _resized(_from_near_by(grey, _sure(afar), scale), grey.shape)
    return ink


def _around(there: np.ndarray) -> tuple[slice, slice] | None:
    "Rows and columns that hold all that is `there`, with `MARGIN` around it; None: nothing is."
    if not there.any():
        return None
    places = (np.flatnonzero(there.any(axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, place[0] - MARGIN), place[-1] + 1 + MARGIN) for place in places)
    return slice(rows.start, min(rows.stop, there.shape[0])), slice(columns.start, min(columns.stop, there.shape[1]))


def _from_near_by(grey: np.ndarray, ink: np.ndarray, scale: float) -> np.ndarray:
    "The ink of a picture, at some scale, that was looked at with `scale`, where `ink` was found."
    width = _typical_width(ink)
    while width < SEEN and scale < 1:
        scale = min(1.0, 2 * scale)
        ink = _sure(_at_scale(grey, scale))
        width = _typical_width(ink) if scale < 1 else STROKE  # there is nothing finer
    if width > 2 * STROKE or width < STROKE and scale < 1:
        ink = _sure(_at_scale(grey, min(1.0, scale * STROKE / width)))
    return ink


def _resized(ink: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(ink).resize(shape[::-1], Image.Resampling.BILINEAR))


def _typical_width(ink: np.ndarray) -> float:
    """The width that half of all strokes are narrower than, in pixels; 0: there is no ink.

    A piece counts by how many times it is as long as it is wide, and not for more than a digit: so that neither a
    patch of shadow nor a ruled line that is taken for ink decides.
    """
    shape = ink > 0.5
    labels, n = scipy.ndimage.label(shape, np.ones((3, 3)))
    if not n:
        return 0.0
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    inside = scipy.ndimage.distance_transform_edt(np.pad(shape, 1))[1:-1, 1:-1]
    widths = 4 * np.bincount(labels.ravel(), inside.ravel(), n + 1)[1:] / areas - 1
    order = widths.argsort()
    weights = np.minimum(areas / widths**2, LONGEST)[order].cumsum()
    return float(widths[order][np.searchsorted(weights, weights[-1] / 2)])


def _at_scale(grey: np.ndarray, scale: float) -> np.ndarray:
    h, w = (max(1, round(side * scale)) for side in grey.shape)
    return ink_chances(np.asarray(Image.fromarray(grey).resize((w, h), Image.Resampling.BOX)))


def _sure(ink: np.ndarray) -> np.ndarray:
    """`ink` without the pieces in which it is nowhere as sure as elsewhere: edges of desks, shadows.

    Two thresholds, as of Canny's edges (1986). Of 2,432 digits in photos each had a pixel of 0.95 or more, and
    of 23 other marks none had one of 0.9.
    """
    return _pieces_with(ink, ink, SURE * ink.max())


def _pieces_with(ink: np.ndarray, chances: np.ndarray, least: float) -> np.ndarray:
    "`ink` without the pieces in which `chances`, of the same shape, are nowhere as much as `least`."
    labels, n = scipy.ndimage.label(ink > INKED, np.ones((3, 3)))
    most, inked = np.zeros(n + 1, np.float32), labels > 0
    np.maximum.at(most, labels[inked], chances[inked])
    missing = most < least
    missing[0] = False  # around the pieces
    return np.where(missing[labels], 0, ink)


def _even_ink(grey: np.ndarray, ink: str) -> Ink:
    "The ink on even paper, which holds most of the picture and of its rim: the greys between those of paper and ink."
    grey = grey.astype(np.float32)
    darkest, lightest = float(grey.min()), float(grey.max())
    if lightest - darkest < 255 * LEAST:
        return Ink(np.zeros_like(grey), ink != "light")
    bright = (grey - darkest) / (lightest - darkest)
    rim = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    dark = ink == "dark" or (ink in ("auto", "drawing") and float((bright > 0.5).mean() + (rim > 0.5).mean()) > 1)
    values = 1 - bright if dark else bright
    paper = float(np.median(values[values < 0.5]))
    density = np.clip((values - paper) / (1 - paper), 0, 1)
    return Ink(density, dark)


def _is_dark(grey: np.ndarray) -> bool:
    """Whether ink is what is darker than its surroundings, and not what is lighter.

    Both are measured in windows of several sizes. A stroke shows in small ones, what lies between and inside strokes
    only in larger ones: so the small ones count for more. As squares of paper are lighter than its lines, a picture
    that is light itself shows light ink only where it is `CLEAR`. Of 1,010 photos none is taken wrongly.
    """
    small = np.asarray(Image.fromarray(grey).reduce(max(1, round(math.sqrt(grey.size / 120_000)))), np.float32)
    grain = small - scipy.ndimage.median_filter(small, 3)
    least = max(255 * LEAST, 6 * 1.48 * float(np.median(np.abs(grain))))
    amounts = np.zeros(2)
    for window in (3, 5, 9, 17, 33, 65):
        darker = scipy.ndimage.grey_closing(small, (window, window), mode="nearest") - small
        lighter = small - scipy.ndimage.grey_opening(small, (window, window), mode="nearest")
        amounts += np.array([darker[darker > least].sum(), lighter[lighter > least].sum()]) / window**2.5
    dark, light = amounts
    return bool(light <= dark * (CLEAR if np.median(small) >= MIDDLE else 1))


def ink_chances(
    grey: np.ndarray,  # uint8 `[h, w]`, ink darker than paper
) -> np.ndarray:  # float32 `[h, w]`
    "For each pixel the part of it that is ink, 0..1, as the network that comes with digitfast sees it."
    h, w = grey.shape
    padded = np.pad(grey, ((0, -h % COARSEST), (0, -w % COARSEST)), mode="edge")
    return _network()(padded[None])[0, :h, :w]


@cache
def _network() -> Callable[[np.ndarray], np.ndarray]:
    "The network: onnxruntime's, which is there at once, unless torch is there already or onnxruntime is not installed."
    return _of_torch() if "torch" in sys.modules or not find_spec("onnxruntime") else _of_onnxruntime()


def _of_onnxruntime() -> Callable[[np.ndarray], np.ndarray]:
    session = open_session(INK_NET.read_bytes(), INK_NET)
    return lambda grey: session.run(None, {"grey": grey})[0]


def _of_torch() -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from digitfast.models.ink_net import open_ink_net

    def chances(grey: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return open_ink_net()(torch.from_numpy(grey)).numpy()
    return chances
