"""The lines of ruled, squared and boxed paper: found in the ink, and taken out of it."""
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit

from digitfast.reading.pieces import INKED

STEEPEST = 0.3  # fall of a line, in pixels per pixel
SLIM = 12  # times that a line is as long as it is thick, at least
REPEATED = 4  # lines that are a ruling because of their number


def without_rulings(
    density: np.ndarray,  # float32 `[h, w]`, 0 = paper to 1 = ink
) -> np.ndarray:  # float32 `[h, w]`
    """Return the ink without ruled lines, squares and the walls of boxes.

    Strokes are thick, short or bent. A ruled line is thin and straight, and it is repeated with the
    same ends, or goes from edge to edge where nothing else does.
    """
    level = _rulings(density, 0, least=0.6)
    upright = _rulings(density.T, len(level), least=0.9)  # shorter ones may be ones, side by side
    if upright and not level:
        level = _rulings(density, len(upright), least=0.6)
    if not (level or upright):
        return density
    removed = np.zeros(density.shape, bool)
    for line in level:
        removed[line.rows, line.columns] = True
    for line in upright:
        removed[line.columns, line.rows] = True
    thickness = max(line.thickness for line in [*level, *upright])
    return _without_remains(np.where(removed, 0, density), removed, round(thickness) + 2)


def _without_remains(density: np.ndarray, removed: np.ndarray, reach: int) -> np.ndarray:
    "Return the ink without the pieces that lie mostly within `reach` pixels of a removed line."
    labels, n = scipy.ndimage.label(density > INKED, np.ones((3, 3)))
    near = scipy.ndimage.maximum_filter(removed, 2 * reach + 1)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    near_sizes = np.bincount(labels.ravel(), near.ravel(), n + 1)
    is_remains = near_sizes > 0.8 * sizes
    is_remains[0] = False  # the paper
    return np.where(is_remains[labels], 0, density)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Runs:
    "Ink from top to bottom without a gap, one column wide: many of them."
    column: np.ndarray
    top: np.ndarray
    bottom: np.ndarray  # the row below the last

    def __getitem__(self, chosen: np.ndarray) -> "_Runs":
        return _Runs(column=self.column[chosen], top=self.top[chosen], bottom=self.bottom[chosen])

    @cached_property
    def middle(self) -> np.ndarray:
        return (self.top + self.bottom - 1) / 2

    @cached_property
    def length(self) -> np.ndarray:
        return self.bottom - self.top


@dataclass(frozen=True, eq=False, kw_only=True)
class _Line:
    "A thin straight line, more level than not."
    start: int  # first and last column
    stop: int
    slope: float  # by how much it falls to the right, in pixels per pixel
    thickness: float  # pixels
    rows: np.ndarray  # of its pixels
    columns: np.ndarray


def _rulings(
    density: np.ndarray,
    n_across: int,  # lines found in the other direction
    least: float,  # length of the longest one, as a part of the width, where there are none
) -> list[_Line]:
    "Return the rulings that are more level than not."
    mask = density > INKED
    height, width = mask.shape
    runs = _runs_of(mask)
    thin = runs[runs.length <= max(5, max(mask.shape) / 50)]
    lines = _lines(thin, mask.shape)
    if not lines:
        return []
    longest = max(line.stop - line.start for line in lines)
    if longest < (0.4 if n_across > 1 else least) * width:
        return []
    start = np.median([line.start for line in lines if line.stop - line.start > 0.8 * longest])
    stop = np.median([line.stop for line in lines if line.stop - line.start > 0.8 * longest])
    near = 0.12 * width
    alike = [line for line in lines if line.start < start + near and line.stop > stop - near
             and line.stop - line.start > 0.85 * (stop - start)]
    if len(alike) >= (REPEATED if n_across < REPEATED else 2):
        slope = np.median([line.slope for line in alike])
        thickest = 1.5 * max(line.thickness for line in alike) + 1
        return [line for line in lines if abs(line.slope - slope) < 0.05
                and line.thickness <= thickest]
    across = [line for line in lines if line.stop - line.start > 0.85 * width]
    return across if _is_beyond_writing(across, lines, mask) else []


def _is_beyond_writing(across: list[_Line], lines: list[_Line], mask: np.ndarray) -> bool:
    "Return whether lines from edge to edge are more than the bar or the foot of one digit."
    if len(across) != 1:
        return bool(across)
    others = mask.copy()
    for line in lines:
        others[line.rows, line.columns] = False
    labels, _ = scipy.ndimage.label(others, np.ones((3, 3)))
    heights = [rows.stop - rows.start for rows, _ in scipy.ndimage.find_objects(labels)]
    if not heights:
        return False
    several = sum(height > 0.5 * max(heights) for height in heights) > 1
    written = np.flatnonzero(others.any(0))
    return several or np.ptp(written) < 0.85 * mask.shape[1]


def _runs_of(mask: np.ndarray) -> _Runs:
    height, width = mask.shape
    padded = np.zeros((width, height + 1), np.int8)
    padded[:, :height] = mask.T
    steps = np.diff(padded.ravel(), prepend=0)
    starts = np.flatnonzero(steps == 1)
    lengths = np.flatnonzero(steps == -1) - starts
    column, top = np.divmod(starts, height + 1)
    return _Runs(column=column, top=top, bottom=top + lengths)


def _lines(
    runs: _Runs,
    shape: tuple[int, int],
    most: int = 200,
    n_slopes: int = 121,
    covered: float = 0.55,  # part of a line that is ink, at least
) -> list[_Line]:
    "Return the straight lines of thin runs (a Hough transform over slopes and heights)."
    height, width = shape
    unit = max(1.0, max(shape) / 600)  # pixels
    skip = max(1, width // 400)
    used = runs[runs.column % skip == 0]
    slopes = np.linspace(-STEEPEST, STEEPEST, n_slopes)
    reach = int((height + 2 * STEEPEST * width) / unit) + 4

    def votes(chosen: _Runs) -> np.ndarray:
        at = chosen.middle - slopes[:, None] * chosen.column + STEEPEST * width
        bins = (at / unit).round().astype(int) + 1 + np.arange(n_slopes)[:, None] * reach
        return np.bincount(bins.ravel(), minlength=n_slopes * reach)

    counts = votes(used)
    least = 0.25 * width / skip
    lines = []
    for _ in range(most):
        near = counts + np.roll(counts, 1) + np.roll(counts, -1)
        best = int(near.argmax())
        if near[best] < least:
            break
        slope = slopes[best // reach]
        offset = (best % reach - 1) * unit - STEEPEST * width
        is_close = abs(used.middle - slope * used.column - offset) <= 1.6 * unit
        close, used = used[is_close], used[~is_close]
        counts -= votes(close)
        line = _line_through(close, runs, unit, skip, covered)
        if line is not None:
            lines.append(line)
    return lines


def _line_through(
    close: _Runs,  # a part of the line's runs
    runs: _Runs,
    unit: float,
    skip: int,
    covered: float,
) -> _Line | None:
    "Return the line of the runs that lie along those, if it is thin and has few gaps."
    columns = np.unique(close.column)
    start, stop = np.quantile(columns, (0.01, 0.99)).astype(int)
    thick = np.median(close.length)
    if (len(columns) * skip < covered * (stop - start) or len(columns) < 8
            or stop - start < SLIM * thick):
        return None
    bend = np.polyfit(close.column, close.middle, 2)
    at = np.polyval(bend, np.arange(runs.column[-1] + 1))
    beside = abs(at[runs.column] - runs.middle) <= 2.5 * unit
    beside &= (runs.column >= start - SLIM) & (runs.column <= stop + SLIM)
    own = runs[beside & (runs.length <= 1.5 * thick + 1)]
    within = np.arange(own.length.sum()) - np.repeat(own.length.cumsum() - own.length, own.length)
    rows = np.repeat(own.top, own.length) + within
    slope = float(np.polyfit(close.column, close.middle, 1)[0])
    return _Line(start=start, stop=stop, slope=slope, thickness=thick, rows=rows,
                 columns=np.repeat(own.column, own.length))
