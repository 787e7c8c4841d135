"""The lines and squares of ruled paper, and of forms: found by being long, thin and straight, and taken away."""
import numpy as np
from scipy import ndimage

STEEPEST = 20  # degrees that lines are looked for to either side
SLENDER = 35  # lengths of a line to its thickness, at least; those of a 1 are 25 at most
LONG = 0.09  # length of a line as a part of the picture's side, at least, where there are FAMILY of them
ALONE, FAMILY = 0.6, 3  # the same, where there are fewer


def without_lines(
    contrast: np.ndarray,  # float32 `[h, w]`, above 0 = ink
    noise: np.ndarray,  # float32 `[h, w]`: contrast up to which there may be no ink
) -> tuple[np.ndarray, np.ndarray]:  # float32 `[h, w]`; bool `[h, w]`, where lines were, and a little around them
    """`contrast` without the lines and squares of the paper; ink that crosses them stays.

    Lines may lean by up to 20°, and those of a family by some degrees to each other, as on a photo from the side.
    """
    near = np.zeros(contrast.shape, bool)
    for _ in range(2):  # level lines, then upright ones
        contrast, here = _without_level_lines(contrast, noise)
        contrast, noise, near = contrast.T, noise.T, (near | here).T
    return np.ascontiguousarray(contrast), near


def _without_level_lines(contrast: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h, w = contrast.shape
    thickest = max(6, round(0.012 * max(h, w)))
    faint = contrast > 0.6 * noise
    thick = ndimage.minimum_filter1d(faint.view(np.uint8), thickest + 1, axis=0)
    thin = faint & ~(ndimage.maximum_filter1d(thick, thickest + 3, axis=0) > 0)
    fall = _fall(thin)
    if fall is None:
        return contrast, np.zeros((h, w), bool)
    drops = np.round(fall * np.arange(w)).astype(int)  # what falls becomes level, on a canvas that is high enough
    rows = np.arange(h)[:, None] - (drops - drops.max())
    level_contrast, level_noise, level_thin, level_faint = (
        _moved(a, rows, np.ptp(drops)) for a in (contrast, noise, thin, faint))
    lines, near = _lines(level_thin, level_faint, level_contrast)
    cleared = np.where(lines, 0, level_contrast)
    if lines.any():  # ink that crosses a line goes on above and below it
        sure = np.where(cleared > level_noise, cleared, 0)
        reach = thickest + 4
        across = ndimage.minimum_filter1d(ndimage.maximum_filter1d(sure, reach, axis=0), reach, axis=0)
        cleared = np.where(lines, np.minimum(across, np.maximum(across > 0, level_contrast)), cleared)
    return np.take_along_axis(cleared, rows, 0), np.take_along_axis(near, rows, 0)


def _moved(values: np.ndarray, rows: np.ndarray, more: int) -> np.ndarray:
    "`values` in their new rows, on a canvas with so many rows more."
    canvas = np.zeros((len(values) + more, values.shape[1]), values.dtype)
    np.put_along_axis(canvas, rows, values, 0)
    return canvas


def _fall(thin: np.ndarray) -> float | None:
    "By how many rows to a column the lines in `thin` fall to the right; None where there seem to be no lines."
    y, x = np.nonzero(thin)
    if len(x) < 300:
        return None
    keep = slice(None, None, max(1, len(x) // 20000))
    y, x = y[keep].astype(np.float32), x[keep].astype(np.float32)

    def gathered(angle: float) -> float:
        "How much the points gather in lines of that angle: the sum of squares over such lines, to a point."
        across = y - x * np.tan(np.deg2rad(angle), dtype=np.float32)
        counts = np.bincount(((across - across.min()) / 2).astype(np.int64)).astype(np.float64)
        return float((counts**2).sum()) / len(x)

    angles = np.arange(-STEEPEST, STEEPEST + 0.1, 0.5)
    sums = [gathered(angle) for angle in angles]
    best = int(np.argmax(sums))
    if sums[best] < 1.3 * np.median(sums):
        return None
    angle = max(angles[best] + np.arange(-0.4, 0.5, 0.1), key=gathered)
    return float(np.tan(np.deg2rad(angle)))


def _lines(thin: np.ndarray, faint: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Which pixels are those of level lines, and not of darker ink on them; and which are near to a line."
    run = max(15, thin.shape[1] // 60)
    joined = ndimage.maximum_filter1d(thin.view(np.uint8), 3, axis=0)
    joined = ndimage.maximum_filter1d(joined, 7, axis=1)
    joined = ndimage.minimum_filter1d(joined, run + 6, axis=1)
    joined = ndimage.maximum_filter1d(joined, run + 10, axis=1)
    labels, _ = ndimage.label(joined, np.ones((3, 3)))
    lines = []
    for i, place in enumerate(ndimage.find_objects(labels), 1):
        at_rim = place[1].start <= run or place[1].stop >= thin.shape[1] - run
        long = LONG / 3 if at_rim else LONG  # of a line that leaves the picture a part is seen
        if place[1].stop - place[1].start >= long * thin.shape[1]:
            place = (slice(max(0, place[0].start - 4), place[0].stop + 4), place[1])
            path = _path((labels[place] == i) & thin[place], SLENDER / 2 if at_rim else SLENDER)
            if path is not None:
                lines.append((place, *path))
    rows = {round(float(np.median(middle)) + place[0].start) // 8 for place, middle, _ in lines}
    found, near = np.zeros((2, *thin.shape), bool)
    for place, middle, thickness in lines:
        length = (place[1].stop - place[1].start) / thin.shape[1]
        at_rim = place[1].start <= run or place[1].stop >= thin.shape[1] - run
        if len(rows) < FAMILY and length < (ALONE / 2 if at_rim or length * thin.shape[1] > 60 * thickness else ALONE):
            continue  # a stroke of a thin pen may be as slender, but no paper has just one or two short lines
        away = np.abs(np.arange(place[0].stop - place[0].start)[:len(faint[place]), None] - middle)
        line = faint[place] & (away <= thickness / 2 + 1.5)
        level = float(np.median(contrast[place][line])) if line.any() else 0.0
        found[place] |= line & (contrast[place] < max(1.6 * level, level + 0.08))
        near[place] |= away <= thickness / 2 + 4
    return found, near


def _path(mask: np.ndarray, slender: float) -> tuple[np.ndarray, float] | None:
    "For each column the middle of the one line in `mask`, and its thickness; None where it is not slender enough."
    counts = mask.sum(0)
    columns = np.flatnonzero(counts)
    if len(columns) < 0.5 * mask.shape[1]:
        return None
    thickness = float(np.median(counts[columns]))
    if mask.shape[1] < slender * thickness:
        return None
    rows = np.arange(mask.shape[0])[:, None]
    step = max(1, len(columns) // 200)
    middles = ((mask * rows).sum(0)[columns] / counts[columns])[::step]
    middles = ndimage.median_filter(middles, max(3, len(middles) // 6) | 1, mode="nearest")
    return np.interp(np.arange(mask.shape[1]), columns[::step], middles), thickness
