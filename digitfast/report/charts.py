"""Charts as SVG, whose colours and text sizes come from the style sheet of the page."""
import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from markupsafe import Markup, escape

# of a chart, in units of its viewBox
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 42  # margins for the text of the axes


@dataclass(frozen=True)
class Line:
    "A line of a chart."
    points: Sequence[tuple[float, float]]  # those that are not finite are left out
    _: KW_ONLY
    colour: str = "one"  # class of the style sheet: one or two
    dots: bool = False  # whether each point is marked


@dataclass(frozen=True)
class Axis:
    "An axis of a chart."
    name: str  # shown for x only
    low: float
    high: float
    _: KW_ONLY
    text: Callable[[float], str] = "{:g}".format
    log: bool = False
    least: float = 0.0  # least distance of two ticks: 1 for what is counted

    def place(self, value: float) -> float:
        "Return where a value is, from 0 at the low end to 1 at the high end."
        low, high = self.low, self.high
        if self.log:
            low, high = math.log(low), math.log(high)
            value = math.log(max(value, 1e-300))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[float]:
        "Return round values, few enough to be read."
        if self.log:
            first = math.floor(math.log10(self.low))
            last = math.ceil(math.log10(self.high))
            decades = range(first, last + 1, 1 + (last - first) // 8)
            steps = (1, 2, 5) if self.high / self.low < 300 else (1,)
            found = [s * 10.0**d for d in decades for s in steps
                     if self.low <= s * 10.0**d <= self.high]
            if len(found) >= 2:
                return found
        rough = (self.high - self.low) / 5
        unit = 10.0**math.floor(math.log10(rough))
        step = next(unit * s for s in (1, 2, 2.5, 5, 10) if unit * s >= rough * 0.999)
        step = max(self.least, step)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def axis_for(
    name: str,
    values: Sequence[float],  # all values to show
    text: Callable[[float], str] = "{:g}".format,
    log: bool = False,  # only where all values are above 0
    low: float | None = None,  # end of the axis; None: as the values require
    high: float | None = None,
) -> Axis:
    "Return an axis on which all finite values have room."
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
    least, most = min(finite), max(finite)
    if log:
        return Axis(name, least / 1.15, most * 1.15, text=text, log=True)
    room = 0.05 * (most - least) or abs(most) * 0.05 or 0.05
    return Axis(name, least - room if low is None else low,
                most + room if high is None else high, text=text)


def line_chart(
    title: str,  # what the chart shows, for readers who do not see it
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
) -> Markup:
    "Return a chart of lines over two axes."
    drawn = []
    for line in lines:
        points = [(_x(x, a), _y(y, b)) for a, b in line.points
                  if math.isfinite(a) and math.isfinite(b)]
        if len(points) > 1:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            drawn.append(f'<polyline class="line {line.colour}" points="{path}"/>')
        if line.dots or len(points) == 1:
            drawn += [f'<circle class="dot {line.colour}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"/>'
                      for px, py in points]
    return _svg(title, _grid(x, y) + "".join(drawn), WIDTH, HEIGHT)


def reliability_chart(
    title: str,
    # mean probability, accuracy, its interval, number of answers
    bins: Sequence[tuple[float, float, tuple[float, float], int]],
) -> Markup:
    "Return a reliability diagram, with a dashed line where the points of a perfect network are."
    x = Axis("probability of the answer", 0, 1, text="{:.0%}".format)
    y = Axis("answers that are right", 0, 1, text="{:.0%}".format)
    drawn = [f'<line class="ideal" x1="{_x(x, 0)}" y1="{_y(y, 0)}"'
             f' x2="{_x(x, 1)}" y2="{_y(y, 1)}"/>']
    most = max((n for *_, n in bins), default=1)
    for sure, right, (low, high), n in bins:
        px = _x(x, sure)
        radius = 2.5 + 5 * math.log1p(n) / math.log1p(most)
        drawn.append(
            f'<g><title>{n:,} answers, {sure:.1%} sure: {right:.1%} right</title>'
            f'<line class="whisker" x1="{px:.1f}" x2="{px:.1f}"'
            f' y1="{_y(y, low):.1f}" y2="{_y(y, high):.1f}"/>'
            f'<circle class="dot one" cx="{px:.1f}" cy="{_y(y, right):.1f}" r="{radius:.1f}"/></g>')
    return _svg(title, _grid(x, y) + "".join(drawn), WIDTH, HEIGHT)


def interval_bar(
    title: str,
    value: float,
    low: float,  # ends of its interval
    high: float,
    start: float = 0.0,  # value at the left end; 1 is at the right end
    width: int = 120,  # in units of the viewBox
) -> Markup:
    "Return a bar that shows a value between 0 and 1 as a point on its interval."
    def place(v: float) -> float:
        return 5 + (width - 10) * max(0.0, v - start) / max(1e-9, 1 - start)

    return _svg(
        title, f'<line class="track" x1="5" x2="{width - 5}" y1="8" y2="8"/>'
        f'<line class="span" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot one" cx="{place(value):.1f}" cy="8" r="4"/>', width, 16)


def _x(axis: Axis, value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * axis.place(value)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis.place(value)


def _grid(x: Axis, y: Axis) -> str:
    "Return the axes as SVG: lines at round values, and the values. The caption names y."
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in y.ticks():
        at = _y(y, value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">'
            f'{escape(y.text(value))}</text>')
    for value in x.ticks():
        at = _x(x, value)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">'
            f'{escape(x.text(value))}</text>')
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="name" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f'{escape(x.name)}</text>')
    return "".join(parts)


def _svg(title: str, inside: str, width: int, height: int) -> Markup:
    title = escape(title)
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
                  f'<title>{title}</title>{inside}</svg>')
