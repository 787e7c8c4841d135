"""One digit's ink, of any size, as MNIST has its digits: 28×28, a box of 20, the centre of mass in the middle."""
import math

import numpy as np
import scipy  # scipy.ndimage comes when it is first used: it takes longer than an answer
from PIL import Image

SIDE, BOX = 28, 20  # pixels
FINE = 4  # pixels of the enlarged drawing to one of MNIST's
STROKE = (2.0, 4.0)  # stroke widths that are left as they are, in pixels of MNIST; its own lie around 2.5


def mnist_form(
    ink: np.ndarray,  # float `[h, w]`, 0 = paper to 1 = ink, of one digit and nothing else
) -> np.ndarray:  # uint8 `[28, 28]`, 0 = paper to 255 = ink
    """`ink` as MNIST's makers brought theirs into form: cut out, scaled to a 20×20 box with its proportions kept,
    anti-aliased, and its centre of mass placed in the centre. Strokes thinner or thicker than MNIST's become as wide.

    Ink of at most 20×20 pixels is only enlarged, as its greys are all that tells its shape; so MNIST's own images stay
    as they are. An image without ink stays empty.
    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    ink = np.asarray(ink, np.float32)
    darkest = float(ink.max(initial=0))
    if darkest < 1 / 255:
        return np.zeros((SIDE, SIDE), np.uint8)
    crop = np.clip(_cut_out(ink, darkest / 8) / darkest, 0, 1)
    if max(crop.shape) > BOX:
        fine = _in_box(crop, BOX * FINE, Image.Resampling.BICUBIC)
        shape = fine > (fine**2).sum() / fine.sum() / 2  # half of what ink has: less than 1 where a line is thin
        crop = _to_whole_pixels(_cut_out(_with_stroke(np.pad(shape, 2 * FINE))))
        small = _in_box(crop, BOX, Image.Resampling.BOX)
    else:
        small = np.clip(_in_box(crop, BOX, Image.Resampling.BICUBIC), 0, 1)
    return (_centred(small) * 255).round().astype(np.uint8)


def stroke_width(
    shape: np.ndarray,  # bool `[h, w]`, with at least one pixel of ink
) -> float:
    "The mean width of the strokes, in pixels: four times the mean distance of ink to paper, as for a straight bar."
    inside = scipy.ndimage.distance_transform_edt(np.pad(shape, 1))
    return 4 * float(inside.sum() / np.count_nonzero(inside)) - 1


def _with_stroke(shape: np.ndarray) -> np.ndarray:
    "`shape` with strokes as wide as MNIST's, when it has been scaled to the box again."
    if not shape.any():
        return shape
    for _ in range(2):  # a wider stroke makes the shape larger, and so the scale smaller
        tight = _cut_out(shape)
        scale = BOX / max(tight.shape)
        width = stroke_width(tight) * scale
        change = (np.clip(width, *STROKE) - width) / (2 * scale)  # pixels on each side
        if change >= 1:
            shape = scipy.ndimage.distance_transform_edt(~shape) <= change
        elif change <= -1:
            thinner = scipy.ndimage.distance_transform_edt(shape) > -change
            shape = thinner if thinner.any() else shape
        else:
            break
    return shape


def _cut_out(ink: np.ndarray, level: float = 0.5) -> np.ndarray:
    "The part of `ink` that holds all pixels above `level`."
    rows, columns = np.flatnonzero((ink > level).any(1)), np.flatnonzero((ink > level).any(0))
    return ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] if len(rows) else ink


def _to_whole_pixels(shape: np.ndarray) -> np.ndarray:
    "`shape` with paper beside it, so that in the box its sides come to whole pixels: else a slim 1 loses a third."
    scale = BOX / max(shape.shape)
    room = [round(math.ceil(side * scale) / scale) - side for side in shape.shape]
    return np.pad(shape, [(spare // 2, spare - spare // 2) for spare in room])


def _in_box(ink: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    "`ink` scaled so that its longer side has `side` pixels, as float32."
    h, w = ink.shape
    size = (max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w))))
    return np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, how))


def _centred(small: np.ndarray) -> np.ndarray:
    "`small` on a canvas of `SIDE` × `SIDE`, its centre of mass as near to the middle, (14, 14), as whole pixels allow."
    canvas = np.zeros((SIDE, SIDE), np.float32)
    mass = small.sum()
    centres = [(small * places).sum() / mass for places in np.mgrid[:small.shape[0], :small.shape[1]]]
    corner = [min(max(round(SIDE / 2 - centre), 0), SIDE - side)
              for centre, side in zip(centres, small.shape, strict=True)]
    canvas[corner[0]:corner[0] + small.shape[0], corner[1]:corner[1] + small.shape[1]] = small
    return canvas
