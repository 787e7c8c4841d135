"""One digit's ink in MNIST's form: 28×28 pixels, a box of 20, the centre of mass in the middle."""
import math

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit
from PIL import Image

SIDE = 28  # pixels of an image's side
BOX = 20  # pixels of the longer side of its digit


def mnist_form(
    ink: np.ndarray,  # float `[h, w]`, 0 = paper to 1 = ink, of one digit and nothing else
) -> np.ndarray:  # uint8 `[28, 28]`, 0 = paper to 255 = ink
    """Return `ink` in MNIST's form, as the makers of MNIST prepared their digits.

    The ink is cut out, scaled to a 20×20 box with its proportions kept, anti-aliased, and centred
    by its centre of mass. Strokes thinner or thicker than MNIST's are brought to MNIST's widths.
    Ink of at most 20×20 pixels is only enlarged, since only its greys show its shape, unless its
    strokes are thinner than MNIST's; so MNIST's own images stay as they are, but for one in 2,500.
    An image without ink stays empty.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    zoom = 4  # pixels of the enlarged drawing per pixel of MNIST
    thinnest = 1.7  # pixels: 12 of 30,000 images of MNIST have thinner strokes
    ink = np.asarray(ink, np.float32)
    darkest = float(ink.max(initial=0))
    if darkest < 1 / 255:
        return np.zeros((SIDE, SIDE), np.uint8)
    crop = np.clip(_cut_out(ink, darkest / 8) / darkest, 0, 1)
    fine = _in_box(crop, BOX * zoom, Image.Resampling.BICUBIC)
    ink_level = (fine**2).sum() / fine.sum()  # below 1 where lines are thin
    shape = fine > ink_level / 2
    if max(crop.shape) > BOX or stroke_width(shape) < thinnest * zoom:
        crop = _pad_to_whole_pixels(_cut_out(_fit_stroke(np.pad(shape, 2 * zoom))))
        small = _in_box(crop, BOX, Image.Resampling.BOX)
    else:
        small = np.clip(_in_box(crop, BOX, Image.Resampling.BICUBIC), 0, 1)
    return (_centre(small) * 255).round().astype(np.uint8)


def is_in_mnist_form(
    images: np.ndarray,  # uint8 `[n, h, w]`, 255 = ink
    least: float = 0.95,  # part of the images that must be
    max_change: float = 1.0,  # mean difference of levels, of 255, that bringing them into it makes
) -> bool:
    "Return whether images are as the makers of MNIST prepared theirs."
    if images.shape[1:] != (SIDE, SIDE):
        return False
    changes = [np.abs(mnist_form(image / np.float32(255)) - image.astype(float)).mean()
               for image in images]
    return float(np.mean(np.array(changes) <= max_change)) >= least


def stroke_width(
    shape: np.ndarray,  # bool `[h, w]`, with at least one pixel of ink
) -> float:
    """Return the mean width of the strokes, in pixels.

    It is four times the mean distance of ink to paper (a distance transform), as in a straight bar.
    """
    inside = scipy.ndimage.distance_transform_edt(np.pad(shape, 1))
    return 4 * float(inside.sum() / np.count_nonzero(inside)) - 1


def _fit_stroke(
    shape: np.ndarray,  # bool `[h, w]`
    kept: tuple[float, float] = (2.0, 4.0),  # widths kept, in MNIST's pixels; its own are about 2.5
) -> np.ndarray:
    "Widen or narrow strokes so that they have MNIST's widths once `shape` is scaled to the box."
    if not shape.any():
        return shape
    for _ in range(2):  # wider strokes make the shape larger, and so the scale smaller
        tight = _cut_out(shape)
        scale = BOX / max(tight.shape)
        width = stroke_width(tight) * scale
        change = (np.clip(width, *kept) - width) / (2 * scale)  # pixels on each side
        if change >= 1:
            shape = scipy.ndimage.distance_transform_edt(~shape) <= change
        elif change <= -1:
            thinner = scipy.ndimage.distance_transform_edt(shape) > -change
            shape = thinner if thinner.any() else shape
        else:
            break
    return shape


def _cut_out(ink: np.ndarray, level: float = 0.5) -> np.ndarray:
    "Return the smallest part of `ink` that holds all pixels above `level`."
    rows = np.flatnonzero((ink > level).any(1))
    columns = np.flatnonzero((ink > level).any(0))
    return ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] if len(rows) else ink


def _pad_to_whole_pixels(shape: np.ndarray) -> np.ndarray:
    "Pad `shape` to whole pixels in the box: rounding would take a third from a slim 1."
    scale = BOX / max(shape.shape)
    room = [round(math.ceil(side * scale) / scale) - side for side in shape.shape]
    return np.pad(shape, [(spare // 2, spare - spare // 2) for spare in room])


def _in_box(ink: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    "Scale `ink` to a longer side of `side` pixels, as float32."
    h, w = ink.shape
    size = (max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w))))
    return np.asarray(Image.fromarray(ink.astype(np.float32)).resize(size, how))


def _centre(small: np.ndarray) -> np.ndarray:
    "Place `small` on a `SIDE` × `SIDE` canvas, its centre of mass as near (14, 14) as possible."
    canvas = np.zeros((SIDE, SIDE), np.float32)
    h, w = small.shape
    mass = small.sum()
    centres = [(small * places).sum() / mass for places in np.mgrid[:h, :w]]
    top, left = (min(max(round(SIDE / 2 - centre), 0), SIDE - side)
                 for centre, side in zip(centres, small.shape, strict=True))
    canvas[top:top + h, left:left + w] = small
    return canvas
