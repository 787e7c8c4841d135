"""The ink of a picture by its contrast with the paper around it: a black top-hat and hysteresis."""
import math

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit
from PIL import Image

from digitfast.reading.pieces import CORNERS, INKED, typical_width
from digitfast.reading.rulings import without_rulings

LEAST_CONTRAST = 0.06  # of the faintest ink, as a part of the paper's brightness
FIRST_LOOK = 400_000  # pixels: enough to see how wide strokes are
STROKE = 6.0  # pixels: wide enough to keep a stroke's shape


def top_hat_ink(
    grey: np.ndarray,  # uint8 `[h, w]`, dark ink
) -> np.ndarray:  # float32 `[h, w]`
    """Return the density of the ink, 0 = paper to 1 = ink, without rulings.

    A first look with a wide window finds how wide strokes are; a second one has a window that just
    holds a stroke, and so less shadow, at the scale at which strokes are easily seen.
    """
    scale = min(1.0, math.sqrt(FIRST_LOOK / grey.size))
    small = scaled(grey, scale)
    first = _look(small, max(small.shape) // 4)
    width = typical_width(without_rulings(first) > 0.5) / scale
    scale = min(1.0, max(STROKE / max(width, 1.0), 64 / max(grey.shape)))
    small = scaled(grey, scale)
    width *= scale
    window = round(5 * width) + 8
    first = resized(first, small.shape)
    if width and window < max(small.shape) // 4:
        first = _with_crossings(_look(small, window), first, round(1.2 * width))
    return resized(without_rulings(first), grey.shape)


def scaled(grey: np.ndarray, scale: float) -> np.ndarray:
    "Return a uint8 picture, reduced to a scale of at most 1."
    if scale == 1:
        return grey
    h, w = (max(1, round(side * scale)) for side in grey.shape)
    return np.asarray(Image.fromarray(grey).resize((w, h), Image.Resampling.BOX))


def resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    "Return a float32 image in another size."
    if image.shape == shape:
        return image
    whole = Image.fromarray(image.astype(np.float32))
    return np.asarray(whole.resize(shape[::-1], Image.Resampling.BILINEAR))


def _with_crossings(density: np.ndarray, first: np.ndarray, reach: int) -> np.ndarray:
    "Return `density` with what the first look saw where strokes cross and are wider than a window."
    side = 2 * reach + 1
    near = scipy.ndimage.maximum_filter((density > INKED).view(np.uint8), side)
    between = scipy.ndimage.minimum_filter(near, side).view(bool)  # a closing
    return np.where(between, np.maximum(density, first), density)


def _look(
    grey: np.ndarray,  # uint8 `[h, w]`, dark ink
    window: int,  # pixels: wider than any stroke
) -> np.ndarray:
    """Return the density of what is darker than all paper within a window, float32 `[h, w]`.

    Weak ink counts where it hangs together with strong ink: hysteresis, as of Canny's edges (1986).
    """
    contrast = _contrast(grey, window)
    paper, noise = _paper_and_noise(contrast)
    contrast -= paper
    level = _ink_level(contrast, np.maximum(LEAST_CONTRAST, 5 * noise))
    if level is None:
        return np.zeros(grey.shape, np.float32)
    weak = contrast > np.maximum(0.25 * level, 4 * noise)
    strong = contrast > np.maximum(0.55 * level, 5 * noise)
    labels, n = scipy.ndimage.label(weak, CORNERS)
    is_ink = np.zeros(n + 1, bool)
    is_ink[labels[strong & weak]] = True
    return np.where(is_ink[labels], np.clip(contrast / (0.7 * level), 0, 1), 0).astype(np.float32)


def _contrast(grey: np.ndarray, window: int) -> np.ndarray:
    "Return by how much each pixel is darker than the paper around it (black top-hat), up to 1."
    factor = max(1, window // 24)  # the paper is even enough to be seen at a lower resolution
    side = max(3, round(window / factor)) | 1
    small = np.asarray(Image.fromarray(grey).reduce(factor))
    paper = scipy.ndimage.grey_closing(small, (side, side), mode="nearest").astype(np.float32)
    paper = scipy.ndimage.uniform_filter(paper, max(3, side // 4), mode="nearest")
    paper = resized(paper, grey.shape)
    least = 0.5 * float(np.percentile(paper[::4, ::4], 90))  # in shadow; a dark desk is darker
    return (paper - grey) / np.maximum(paper, least)


def _blocks(values: np.ndarray, n: int = 8) -> np.ndarray:
    "Return the values in blocks, an eighth of the longer side each: `[rows, columns, pixels]`."
    side = max(8, math.ceil(max(values.shape) / n))
    mode = "reflect" if min(values.shape) > side else "edge"
    padded = np.pad(values, [(0, -s % side) for s in values.shape], mode=mode)
    rows, columns = (s // side for s in padded.shape)
    blocks = padded.reshape(rows, side, columns, side).swapaxes(1, 2)
    return blocks.reshape(rows, columns, side * side)


def _paper_and_noise(contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the contrast of bare paper, and the deviation of its grain, for each pixel.

    Both are those of one of the cleaner blocks of three by three around it, as ink may fill some.
    """
    low, middle = np.percentile(_blocks(contrast)[:, :, ::7], (15, 45), axis=2)
    noise = (middle - low) / 0.91  # of a normal distribution, in deviations
    middle = scipy.ndimage.percentile_filter(middle, 30, 3)
    noise = scipy.ndimage.percentile_filter(noise, 30, 3)
    return resized(middle, contrast.shape), resized(noise, contrast.shape)


def _ink_level(contrast: np.ndarray, least: np.ndarray) -> np.ndarray | None:
    "Return the contrast of the ink around each pixel; None where no pixel has the least contrast."
    is_marked = contrast > least
    if not is_marked.any():
        return None
    overall = float(np.percentile(contrast[is_marked], 75))
    blocks = _blocks(np.where(is_marked, contrast, 0))
    n_marked = np.count_nonzero(blocks, axis=2)
    local = np.where(n_marked > 30, blocks.sum(2) / np.maximum(n_marked, 1), overall)
    return resized(np.clip(local, 0.6 * overall, 1.5 * overall), contrast.shape)
