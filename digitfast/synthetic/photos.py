"""Synthetic phone photos of handwritten digits, to measure how well real ones are found and read.

A pen writes the digits on a page, turned and tilted before a camera that blurs, adds noise and
compresses. For evaluation only: what is tuned on the photos learns this module's idea of a photo.
"""
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from digitfast.errors import BadImage, BadSetting
from digitfast.synthetic.pen import MARGIN, UNIT, inked_part, redraw

MOST_DIGITS = 10  # in a photo
SIDES = range(300, 6001)  # pixels of a photo's width, and of its height

PENS = {  # colour; least and most width, × digit height; part that it covers; page's grain in it
    "blue ballpoint": ((34, 52, 152), 0.04, 0.07, 0.88, 0.06),
    "black ballpoint": ((36, 35, 42), 0.04, 0.07, 0.86, 0.06),
    "pencil": ((58, 58, 64), 0.045, 0.09, 0.84, 0.13),
    "red pen": ((188, 32, 44), 0.05, 0.09, 0.88, 0.04),
    "blue felt pen": ((26, 58, 160), 0.06, 0.11, 0.92, 0.03),
    "black marker": ((24, 24, 27), 0.08, 0.14, 0.96, 0.02),
    "chalk": ((236, 236, 228), 0.06, 0.12, 0.85, 0.18),
    "stylus": ((244, 244, 246), 0.04, 0.1, 1.0, 0.0),
}
BOARD_PENS = {"chalkboard": "chalk", "tablet": "stylus"}
PAPERS = {"white": (247, 246, 243), "cream": (245, 236, 214), "grey": (208, 207, 203),
          "blue": (208, 226, 240), "sticky note": (250, 230, 112), "kraft": (193, 157, 116),
          "chalkboard": (46, 64, 56), "tablet": (24, 24, 27)}
PAPER_WEIGHTS = 0.36, 0.126, 0.108, 0.099, 0.108, 0.099, 0.05, 0.05  # probability of each
LINES = {"pale blue": (150, 184, 220), "grey": (166, 168, 172), "violet": (184, 168, 212),
         "dark": (92, 108, 146)}
MARGIN_LINE = (214, 92, 100)
DESKS = {"wood": (142, 98, 62), "dark wood": (84, 56, 40), "dark desk": (58, 58, 62),
         "grey desk": (120, 118, 116)}


@dataclass(frozen=True)
class Photo:
    "A synthetic photo, the boxes of its digits as PIL crops, and what was drawn."
    image: Image.Image  # mode "RGB"
    boxes: list[tuple[int, int, int, int]]  # left, top, right, bottom of each one's ink before blur
    conditions: dict[str, object]  # what was chosen, by name; `_choose` says what each means


def synthetic_photo(
    digits: np.ndarray,  # uint8 `[n, 28, 28]`, n of 1 to 10, MNIST's form: 0 = paper to 255 = ink
    rng: np.random.Generator,  # gives every choice: the same state gives the same bytes
    size: tuple[int, int] = (1200, 900),  # width and height in pixels, 300 to 6000 each
) -> Photo:
    """Return a photo, as a phone might take it, of `digits` that one pen wrote from left to right.

    Raises: `BadImage` for other digits or one without ink; `BadSetting` for a size out of range.
    """
    _check(digits, size)
    chosen = _choose(digits, size, rng)
    scales = rng.uniform(0.85, 1.15, len(digits)) if len(digits) > 1 else [1]
    depths = [redraw(digit, UNIT * scale, chosen["pen_width"])
              for digit, scale in zip(digits, scales, strict=True)]
    corners, extent = _row(depths, chosen, rng)
    page, chosen["digit_height"] = _page(extent, size, chosen)
    image = Image.new("RGB", size, PAPERS[chosen["paper"]])
    if chosen["ruling"] != "plain":
        _rule(image, page, extent, chosen, rng)
    grain = _noise(size, (2, 2), rng)
    boxes = _write(image, page, depths, corners, grain, chosen, rng)
    if chosen["desk"]:
        _lay_on_desk(image, page, extent, chosen, rng)
    light = _light(size, chosen, rng) * (1 if chosen["paper"] == "tablet" else 1 + 0.02 * grain)
    return Photo(_take(image, light, chosen, rng), boxes, chosen)


def _check(digits: np.ndarray, size: tuple[int, int]):
    "Raise what `synthetic_photo` says for digits and a size that it cannot draw."
    shape = getattr(digits, "shape", ())
    dtype = getattr(digits, "dtype", type(digits).__name__)
    if dtype != np.uint8 or shape[1:] != (28, 28) or not 1 <= shape[0] <= MOST_DIGITS:
        raise BadImage(f"digits must be uint8 [n, 28, 28] with n from 1 to {MOST_DIGITS}, "
                       f"not {dtype} {list(shape)}")
    if not (inked := digits.any(axis=(1, 2))).all():
        raise BadImage("each digit must have ink (0 = paper to 255 = ink); "
                       f"digit {inked.argmin()} has none")
    if not (isinstance(size, tuple) and len(size) == 2
            and all(isinstance(s, int) and s in SIDES for s in size)):
        raise BadSetting(f"size must be two whole numbers of {SIDES[0]} to {SIDES[-1]} pixels, "
                         f"not {size}")


def _choose(digits: np.ndarray, size: tuple[int, int], rng: np.random.Generator
            ) -> dict[str, object]:
    "Return what a photo of `digits` looks like; lengths are in digit heights unless stated."
    def any_of(names, weights=None):
        return str(rng.choice(list(names), p=weights))
    n = len(digits)
    short = min(size)
    between = rng.uniform
    paper = any_of(PAPERS, PAPER_WEIGHTS)
    pen = BOARD_PENS.get(paper) or any_of(name for name in PENS if name not in BOARD_PENS.values())
    height = (short * math.exp(between(math.log(0.06), math.log(0.7))) if n == 1
              else min(short * 0.7, between(0.5, 1.1) * size[0] / n))
    ruling = ("plain" if paper in ("sticky note", "kraft", *BOARD_PENS)
              else any_of(["plain", "ruled", "squared"]))
    pitch = between(0.7, 2) if ruling == "ruled" else 1 / between(1, 3)
    widths = digits.any(1).sum(1)  # the widest pair may touch: a 1 would look like part of another
    pair = int(np.minimum(widths[1:], widths[:-1]).argmax()) if n > 1 else None
    return {
        "dark": paper in BOARD_PENS,  # white ink on a dark ground
        "paper": paper,
        "pen": pen,
        "pen_width": max(between(*PENS[pen][1:3]), 2 / height),  # at least 2 pixels
        "digit_height": height,  # pixels of its ink's longer side; less where the row would not fit
        "gap": between(0.06, 0.5),  # between neighbours, ± 0.1
        "touching": pair if rng.random() < 1 / 10 else None,  # index of one that touches the next
        "place": tuple(rng.beta(0.8, 0.8, 2).tolist()),  # 0 at left and top, 1 at right and bottom
        "rotation": between(-15, 15),  # of the page, in degrees anticlockwise
        "tilt": (between(-0.2, 0.2), between(-0.2, 0.2)),  # change of scale over a diagonal: x, y
        "ruling": ruling,
        "pitch": pitch,  # distance between lines
        "line_colour": any_of(LINES, (0.38, 0.25, 0.22, 0.15)),
        "line_width": min(between(1, 4) * short / 900, pitch * height / 12),  # in pixels
        "margin_line": ruling != "plain" and rng.random() < 1 / 3,
        "desk": (any_of(DESKS) if paper not in BOARD_PENS and rng.random() < 1 / 6
                 else None),  # seen around the page
        "light": any_of(["linear", "radial"]),
        "darkest": min(1.0, between(0.45, 1.1)),  # part of the brightest; 1 is even light
        "shadow": any_of(["edge", "blob"]) if rng.random() < 1 / 3 and paper != "tablet" else None,
        "vignette": between(0.1, 0.35) if rng.random() < 1 / 4 else 0.0,  # part lost in the corners
        "exposure": between(0.8, 1.12),
        "tint": (between(0.92, 1.08), 1.0, between(0.92, 1.08)),  # factors of red, green and blue
        "blur": any_of(["gaussian", "motion"], (0.6, 0.4)),
        "blur_width": 0.04 * between(0, 1) ** 2,  # two deviations, or the length of the motion
        "noise": between(1, 6),  # deviation, in levels of 255
        "jpeg_quality": int(rng.integers(40, 96)),
    }


def _row(depths: list[np.ndarray], chosen: dict, rng: np.random.Generator
         ) -> tuple[np.ndarray, np.ndarray]:
    "Return each digit's left top corner from the row's middle, and the row's width and height."
    boxes = []
    x = reach = 0.0
    slope = UNIT * rng.uniform(-0.03, 0.03)
    for i, depth in enumerate(depths):
        ink = depth[MARGIN:-MARGIN, MARGIN:-MARGIN] > 0
        height, width = ink.shape
        foot = 3 * UNIT + round(slope * i + UNIT * rng.uniform(-0.06, 0.06))
        starts, ends = np.full((2, 4 * UNIT), [[np.inf], [-np.inf]])  # of ink, per pixel line
        starts[foot - height:foot] = ink.argmax(1)
        ends[foot - height:foot] = width - ink[:, ::-1].argmax(1)
        if i:
            nearest = max((reach - starts).max(), boxes[-1][0])
            x = (nearest - UNIT * chosen["pen_width"] / 2 if chosen["touching"] == i - 1 else
                 max(nearest, boxes[-1][2] - 0.1 * UNIT)
                 + UNIT * max(0.06, chosen["gap"] + rng.uniform(-0.1, 0.1)))
        reach = x + ends
        boxes.append((x, foot - height, x + width, foot))
    boxes = np.array(boxes)
    first, last = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    return boxes[:, :2] - MARGIN - (first + last) / 2, last - first


def _page(extent: np.ndarray, size: tuple[int, int], chosen: dict) -> tuple[np.ndarray, float]:
    "Return the matrix from page to photo, and the digit height, in pixels, at which the row fits."
    angle = math.radians(chosen["rotation"])
    cos, sin = math.cos(angle), math.sin(angle)
    turned = 1.08 * np.array([[cos, abs(sin)], [abs(sin), cos]]) @ extent / UNIT  # 8 % for the tilt
    height = min(chosen["digit_height"],
                 float((size / turned).min()) * (0.75 if chosen["desk"] else 0.96))
    x, y = (turned * height / 2
            + (size - turned * height) * (0.03 + 0.94 * np.array(chosen["place"])))
    scale = height / UNIT
    tilt = np.array(chosen["tilt"]) / math.hypot(*size)
    turn = np.array([[scale * cos, scale * sin, 0], [-scale * sin, scale * cos, 0], [0, 0, 1]])
    return (np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
            @ [[1, 0, 0], [0, 1, 0], [*tilt, 1]] @ turn), height


def _corners(matrix: np.ndarray, left: float, top: float, right: float, bottom: float
             ) -> np.ndarray:
    "Return the corners `[4, 2]` of a rectangle in projection, from left top to left bottom."
    x, y, w = matrix @ [[left, right, right, left], [top, top, bottom, bottom], [1, 1, 1, 1]]
    return np.column_stack([x / w, y / w])


def _mask(size: tuple[int, int], page: np.ndarray, rectangles: list) -> Image.Image:
    "Return 255, smooth at edges, where rectangles `(left, top, right, bottom)` of the page appear."
    mask = Image.new("L", (size[0] * 2, size[1] * 2))
    for rectangle in rectangles:
        ImageDraw.Draw(mask).polygon(
            [tuple(corner) for corner in _corners(page, *rectangle) * 2], fill=255)
    return mask.reduce(2)


def _rule(image: Image.Image, page: np.ndarray, extent: np.ndarray, chosen: dict,
          rng: np.random.Generator):
    "Print the lines of the paper on `image`."
    seen = _corners(np.linalg.inv(page), 0, 0, *image.size)
    (left, top), (right, bottom) = seen.min(0), seen.max(0)
    half = UNIT * chosen["line_width"] / chosen["digit_height"] / 2
    pitch = UNIT * chosen["pitch"]
    foot = extent[1] / 2 + rng.choice([0, rng.uniform(0, pitch)])  # half write on the line
    lines = [(left, y - half, right, y + half)
             for y in np.arange(foot + (top - foot) // pitch * pitch, bottom, pitch)]
    if chosen["ruling"] == "squared":
        lines += [(x - half, top, x + half, bottom)
                  for x in np.arange(left - rng.uniform(0, pitch), right, pitch)]
    mask = _mask(image.size, page, lines)
    strength = rng.uniform(0.5, 1)
    image.paste(LINES[chosen["line_colour"]], mask=mask.point(lambda level: level * strength))
    if chosen["margin_line"]:
        x = -extent[0] / 2 - UNIT * rng.uniform(0.3, 1.2)
        image.paste(MARGIN_LINE, mask=_mask(image.size, page, [(x - half, top, x + half, bottom)]))


def _noise(size: tuple[int, int], cell: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    "Return smooth noise `[height, width]` of deviation 1 or less, changing within `cell` pixels."
    small = rng.standard_normal((size[1] // cell[1] + 2, size[0] // cell[0] + 2), np.float32)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))


def _write(image: Image.Image, page: np.ndarray, depths: list[np.ndarray], corners: np.ndarray,
           grain: np.ndarray, chosen: dict, rng: np.random.Generator
           ) -> list[tuple[int, int, int, int]]:
    "Put the redrawn digits, each with its corner on the page, on `image`; return the box of each."
    boxes = []
    colour, _, _, cover, roughness = PENS[chosen["pen"]]
    colour = tuple(int(c) for c in (colour + rng.uniform(-12, 12, 3)).clip(0, 255))
    cell = max(4, int(chosen["digit_height"] / 8))
    for depth, (x, y) in zip(depths, corners, strict=True):
        to_photo = page @ [[1, 0, x], [0, 1, y], [0, 0, 1]]
        outline = _corners(to_photo, 0, 0, *depth.shape[::-1])
        (left, top), (right, bottom) = np.clip(
            [outline.min(0), outline.max(0) + 1], 0, image.size).astype(int).tolist()
        back = np.linalg.inv(to_photo) @ [[1, 0, left], [0, 1, top], [0, 0, 1]]
        depth = np.asarray(Image.fromarray(depth).transform(
            (right - left, bottom - top), Image.Transform.PERSPECTIVE,
            (back / back[2, 2]).ravel()[:8], Image.Resampling.BICUBIC, fillcolor=-UNIT))
        inked = (depth * (chosen["digit_height"] / UNIT) + 0.5).clip(0, 1)  # sharp at any size
        rows, columns = inked_part(inked >= 0.5)
        boxes.append((left + columns.start, top + rows.start, left + columns.stop, top + rows.stop))
        part = (cover + 0.06 * _noise(inked.shape[::-1], (cell, cell), rng)
                + roughness * grain[top:bottom, left:right])
        image.paste(colour, (left, top),
                    Image.fromarray((255 * inked * part.clip(0.3, 1)).astype(np.uint8)))
    return boxes


def _lay_on_desk(image: Image.Image, page: np.ndarray, extent: np.ndarray, chosen: dict,
                 rng: np.random.Generator):
    "End the page around the ink, at some sides or all; paint the desk and the page's shadow there."
    seen = _corners(np.linalg.inv(page), 0, 0, *image.size)
    outward = np.array([-1, -1, 1, 1])  # left, top, right and bottom
    far = outward * (seen + np.roll(seen, 1, 0))[range(4), [0, 1, 0, 1]] / 2  # the photo's sides
    near = np.tile(extent, 2) / 2 + 0.2 * UNIT
    ending = (rng.random(4) < 0.5) | (far - near == (far - near).max())
    ends = near + (far - near).clip(0) * np.where(ending, rng.uniform(0.3, 0.8, 4), 3)
    paper = _mask(image.size, page, [outward * ends])
    grain = _noise(image.size, (image.width // 3 if "wood" in chosen["desk"] else 3, 3), rng)
    shadow = np.asarray(
        paper.filter(ImageFilter.GaussianBlur(min(image.size) / 90)), np.float32) / 255
    shade = (1 + 0.09 * grain) * (1 - 0.5 * shadow)
    image.paste(_merge(c * shade for c in DESKS[chosen["desk"]]), mask=ImageChops.invert(paper))


def _merge(bands) -> Image.Image:
    "Return the image of red, green and blue as arrays, clipped to 0..255 and rounded down."
    return Image.merge("RGB", [Image.fromarray(band.clip(0, 255).astype(np.uint8))
                               for band in bands])


def _light(size: tuple[int, int], chosen: dict, rng: np.random.Generator) -> np.ndarray:
    "Return the light on each pixel `[height, width]` of the photo, about 1 where it is brightest."
    short = min(size)
    coarse = short // 112  # pixels between computed points, about eight: light is smooth
    x, y = np.meshgrid(*(np.arange(coarse / 2, side, coarse) - side / 2 for side in size))
    spot = x + 1j * y  # from the middle of the photo
    lamp = rng.uniform(0, short) * np.exp(2j * math.pi * rng.random())
    way = (spot * lamp.conjugate()).real if chosen["light"] == "linear" else abs(spot - lamp)
    light = 1 - (1 - chosen["darkest"]) * (way - way.min()) / np.ptp(way)
    if chosen["shadow"]:  # of something round, small or so large that its edge is almost straight
        radius = short * (rng.uniform(0.3, 0.6) if chosen["shadow"] == "blob" else 3)
        middle = (radius + short * rng.uniform(-0.15, 0.35)) * np.exp(2j * math.pi * rng.random())
        outside = (abs(spot - middle) - radius
                   + short * 1.5 * gaussian_filter(rng.standard_normal(x.shape), 14))
        light *= 1 - rng.uniform(0.2, 0.45) / (
            1 + np.exp((outside / short / rng.uniform(0.008, 0.04)).clip(-30, 30)))
    light *= 1 - chosen["vignette"] * (abs(spot) / abs(spot).max()) ** 2
    light = (light.clip(0.36) * chosen["exposure"]).astype(np.float32)
    return np.asarray(Image.fromarray(light).resize(size, Image.Resampling.BICUBIC))


def _take(image: Image.Image, light: np.ndarray, chosen: dict, rng: np.random.Generator
          ) -> Image.Image:
    "Return `image` in this light as a camera keeps it: tinted, blurred, with noise, through JPEG."
    image = _merge(np.asarray(band) * (light * gain)
                   for band, gain in zip(image.split(), chosen["tint"], strict=True))
    way = chosen["blur_width"] * chosen["digit_height"]
    angle = rng.uniform(0, math.pi)
    if chosen["blur"] == "motion":
        pad = math.ceil(way) + 1
        image = Image.fromarray(np.pad(np.asarray(image), [(pad, pad), (pad, pad), (0, 0)], "edge"))
        for part in (2, 4, 8, 16):  # each blend doubles the number of images along the way
            step = round(way / part * math.cos(angle)), round(way / part * math.sin(angle))
            image = Image.blend(image, ImageChops.offset(image, *step), 0.5)
        image = image.crop((pad, pad, image.width - pad, image.height - pad))
        way = 0
    image = image.filter(ImageFilter.GaussianBlur(max(0.6, way / 2)))  # no lens is sharper
    grey = 0.8 * rng.standard_normal(light.shape, np.float32)
    image = _merge(
        np.asarray(band) + chosen["noise"] * (grey + 0.6 * _noise(image.size, (2, 2), rng))
        for band in image.split())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=chosen["jpeg_quality"])
    return Image.open(file).convert("RGB")
