"""The ink of a picture as a network sees it, without paper, shadows, rulings and desks."""
import math
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit

from digitfast.files import PACKED
from digitfast.inference.onnx_network import open_session
from digitfast.reading.pieces import CORNERS, INKED, typical_width
from digitfast.reading.top_hat import resized, scaled

#: The network of models/ink_net.py, for where torch is not imported.
INK_NET = PACKED / "ink.onnx"
COARSEST = 32  # pixels: the network takes sides that are multiples of this
THINNEST = 5  # pixels: strokes that look narrower may be far narrower, as the network widens them
STROKE = 8  # pixels: strokes of once to twice this width are found best


def network_ink(
    grey: np.ndarray,  # uint8 `[h, w]`, dark ink
    pixels: int = 512 * 384,  # of the first look
    trace: float = 0.003,  # chance in the first look that makes a closer look worthwhile
) -> np.ndarray:  # float32 `[h, w]`
    """Return the density of the ink, 0 = paper to 1 = ink.

    A first look finds traces of ink, and a second one, at the scale that suits the strokes, looks
    around those only: the grain of wood shows only from near by. If there are none, the second look
    is at the whole picture.
    """
    scale = min(1.0, math.sqrt(pixels / grey.size))
    first = ink_chances(scaled(grey, scale))
    density = np.zeros(grey.shape, np.float32)
    around = _around(first >= trace)
    if around:
        part = tuple(slice(round(side.start / scale), round(side.stop / scale)) for side in around)
        second = _second_look(grey[part], _sure(first)[around], scale)
        second = _pieces_with(second, resized(first[around], second.shape), trace)
        density[part] = resized(second, density[part].shape)
    if scale < 1 and not (density > INKED).any():
        return resized(_second_look(grey, _sure(first), scale), grey.shape)
    return density


def _around(
    shape: np.ndarray,  # bool `[h, w]`
    margin: int = 32,  # pixels
) -> tuple[slice, slice] | None:
    "Return the rows and columns that hold all that is true, with a margin; None if nothing is."
    if not shape.any():
        return None
    found = scipy.ndimage.find_objects(shape.astype(np.int8))[0]
    return tuple(slice(max(0, side.start - margin), min(side.stop + margin, length))
                 for side, length in zip(found, shape.shape, strict=True))


def _second_look(
    grey: np.ndarray,
    density: np.ndarray,  # of the first look
    scale: float,  # of the first look
) -> np.ndarray:
    "Return the ink, at some scale, seen from where strokes are neither thin nor wide."
    width = typical_width(density > 0.5)
    while width < THINNEST and scale < 1:
        scale = min(1.0, 2 * scale)
        density = _sure(ink_chances(scaled(grey, scale)))
        width = typical_width(density > 0.5) if scale < 1 else STROKE  # there is nothing finer
    if width > 2 * STROKE or (width < STROKE and scale < 1):
        density = _sure(ink_chances(scaled(grey, min(1.0, scale * STROKE / width))))
    return density


def _sure(density: np.ndarray, least: float = 0.9) -> np.ndarray:
    """Return the ink without the pieces that are nowhere as sure as the surest: desks, shadows.

    This is hysteresis, as of Canny's edges (1986). Of 2,432 digits in photos each had a pixel of
    0.95 or more; of 23 other marks none had one of 0.9.
    """
    return _pieces_with(density, density, least * density.max())


def _pieces_with(density: np.ndarray, chances: np.ndarray, least: float) -> np.ndarray:
    "Return the ink without the pieces in which `chances` are less than `least` everywhere."
    labels, n = scipy.ndimage.label(density > INKED, CORNERS)
    most = np.zeros(n + 1, np.float32)
    is_inked = labels > 0
    np.maximum.at(most, labels[is_inked], chances[is_inked])
    is_unsure = most < least
    is_unsure[0] = False  # the paper
    return np.where(is_unsure[labels], 0, density)


def ink_chances(
    grey: np.ndarray,  # uint8 `[h, w]`, ink darker than paper
) -> np.ndarray:  # float32 `[h, w]`
    "Return the part of each pixel that is ink, 0..1, as the bundled network sees it."
    h, w = grey.shape
    padded = np.pad(grey, ((0, -h % COARSEST), (0, -w % COARSEST)), mode="edge")
    return _network()(padded[None])[0, :h, :w]


@cache
def _network() -> Callable[[np.ndarray], np.ndarray]:
    "Return the network, in onnxruntime, unless torch is imported or onnxruntime not installed."
    if "torch" in sys.modules or not find_spec("onnxruntime"):
        return _of_torch()
    return _of_onnxruntime()


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
