"""A grey picture of paper with writing → its ink, seen in more than one way."""
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit
from PIL import Image

from digitfast.errors import BadSetting
from digitfast.reading.ink_network import network_ink
from digitfast.reading.top_hat import LEAST_CONTRAST, top_hat_ink

INKS = ("auto", "dark", "light", "drawing")  # what a picture's ink can be, against its paper
SMALL = 64  # pixels: below this longer side a picture is one digit cut out, on even paper


@dataclass(frozen=True)
class Ink:
    "The ink of a picture."
    density: np.ndarray  # float32 `[h, w]`, 0 = paper to 1 = ink
    dark: bool  # whether the ink is darker than the paper


def find_inks(
    grey: np.ndarray,  # uint8 `[h, w]`
    ink: str = "auto",  # dark or light, against its paper; auto: whichever it is; drawing: below
) -> Iterator[Ink]:
    """Yield the ink of a picture in each way of seeing it: the one that reads best is right.

    A top-hat keeps every stroke whole, and takes other things that are dark for ink, too. A network
    knows desks, shadows and squared paper, and loses thin strokes. In a "drawing", as a program
    makes it on even paper, and in a picture of less than 64 pixels, there is one way: everything
    that stands out from the paper is ink.
    Raises: `BadSetting` for another `ink`.
    """
    if ink not in INKS:
        raise BadSetting(f"ink must be one of {', '.join(INKS)}, not {ink!r}")
    if ink == "drawing" or max(grey.shape) < SMALL:
        yield even_ink(grey, ink)
        return
    dark = ink == "dark" or (ink == "auto" and _is_dark(grey))
    for way in (top_hat_ink, network_ink):
        yield Ink(way(grey if dark else 255 - grey), dark)


def even_ink(
    grey: np.ndarray,  # uint8 `[h, w]`
    ink: str = "auto",  # as for `find_inks`
) -> Ink:
    "Return the ink on even paper, which is most of the picture and of its rim."
    grey = grey.astype(np.float32)
    darkest = float(grey.min())
    lightest = float(grey.max())
    if lightest - darkest < 255 * LEAST_CONTRAST:
        return Ink(np.zeros_like(grey), ink != "light")
    bright = (grey - darkest) / (lightest - darkest)
    rim = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    is_light_paper = float((bright > 0.5).mean() + (rim > 0.5).mean()) > 1
    dark = ink == "dark" or (ink != "light" and is_light_paper)
    values = 1 - bright if dark else bright
    paper = float(np.median(values[values < 0.5]))
    return Ink(np.clip((values - paper) / (1 - paper), 0, 1), dark)


def _is_dark(
    grey: np.ndarray,  # uint8 `[h, w]`
    pixels: int = 120_000,  # that are enough to tell
    light_page: int = 110,  # grey from which a picture is light itself
    clearly_more: float = 2.7,  # light ink than dark, on a light page
) -> bool:
    """Return whether ink is darker than its surroundings, and not lighter.

    Both are measured in windows of several sizes. A stroke shows in small ones, what lies between
    and inside strokes only in larger ones, so the small ones count for more. As squares of paper
    are lighter than its lines, a picture that is light itself has light ink only where that is
    clearly more. Of 1,010 photos none is taken wrongly.
    """
    factor = max(1, round(math.sqrt(grey.size / pixels)))
    small = np.asarray(Image.fromarray(grey).reduce(factor), np.float32)
    grain = small - scipy.ndimage.median_filter(small, 3)
    least = max(255 * LEAST_CONTRAST, 6 * 1.48 * float(np.median(np.abs(grain))))
    amounts = np.zeros(2)
    for window in (3, 5, 9, 17, 33, 65):
        darker = scipy.ndimage.grey_closing(small, (window, window), mode="nearest") - small
        lighter = small - scipy.ndimage.grey_opening(small, (window, window), mode="nearest")
        found = [darker[darker > least].sum(), lighter[lighter > least].sum()]
        amounts += np.array(found) / window**2.5
    dark, light = amounts
    return bool(light <= dark * (clearly_more if np.median(small) >= light_page else 1))
