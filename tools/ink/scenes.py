"""Draw pieces of photos of paper with the truth which pixels are ink, to train the ink network on.

All of it is drawn in far more ways than paper has: the network must learn what writing is, not one
kind of photo. It shares nothing with `digitfast/synthetic/photos.py`, so that those photos stay a
test.
"""
import io
import math

import numpy as np
from marks import SIDE, Rng, writing
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage


def scene(
    digits: np.ndarray,  # uint8 `[n, 28, 28]`, training images
    rng: Rng,
) -> tuple[np.ndarray, np.ndarray]:  # uint8 `[320, 320]`: grey picture, ink of each pixel
    """Return a piece of a photo of paper with writing, dark on light, and its ink.

    Some are in negative, where nothing dark is ink.
    """
    board = rng.random() < 0.12  # chalk or light on a screen, seen in negative
    drawn = rng.random() < 0.15  # on a computer: even and without noise
    ink, height = writing(digits, rng)
    paper = (0 if drawn else _clouds(rng, 20, 90) * rng.uniform(0, 0.05)) + rng.uniform(0.5, 1)
    lines = np.zeros((SIDE, SIDE), np.float32)
    if rng.random() < (0.2 if board or drawn else 0.72):
        lines = _rulings(rng, height)
    dark = math.exp(rng.uniform(math.log(0.16), math.log(0.97)))  # of the ink
    faint = dark * rng.uniform(0.15, 1.15) if rng.random() < 0.8 else 1.2 * dark
    cover = 1 - rng.uniform(0, 0.25) * rng.random() * np.abs(_grain(rng, rng.choice([1, 2, 3])))
    page = (paper * (1 - np.clip(faint, 0, 0.95) * lines)
            * (1 - dark * ink * (1 if drawn else cover.clip(0.3, 1))))
    if not drawn:
        page, ink = _photographed(page, ink, board, rng)
    picture = _taken(page * rng.uniform(0.8, 1.1), height, drawn, rng)
    ink = (ink * 255).round().astype(np.uint8)
    return (picture, ink) if rng.random() < 0.93 else (255 - picture, np.zeros_like(ink))


def _photographed(page: np.ndarray, ink: np.ndarray, board: bool, rng: Rng
                  ) -> tuple[np.ndarray, np.ndarray]:
    "Return a page with its grain, perhaps on a desk, in some light, and its ink."
    page = page * (1 + rng.uniform(0, 0.03) * _grain(rng, rng.choice([1, 2])))
    if not board and rng.random() < 0.3:
        page, ink = _on_desk(page, ink, rng)
    if board and rng.random() < 0.5:  # wiped chalk
        page = page * (1 - rng.uniform(0, 0.15) * np.clip(_clouds(rng, 8, 60), 0, 2))
    if rng.random() < 0.06:
        page, ink = _beside_thing(page, ink, rng)
    return page * (_light(rng) if not board or rng.random() < 0.6 else 1), ink


def _grain(rng: Rng, cell: int) -> np.ndarray:
    "Return noise of deviation 1 that changes within `cell` pixels."
    n = SIDE // cell + 2
    return np.asarray(Image.fromarray(rng.standard_normal((n, n), np.float32)).resize(
        (SIDE, SIDE), Image.BICUBIC))


def _clouds(rng: Rng, least: float, most: float) -> np.ndarray:
    "Return smooth noise of deviation about 1."
    return _grain(rng, int(math.exp(rng.uniform(math.log(least), math.log(most)))))


def _rulings(rng: Rng, height: float) -> np.ndarray:
    """Return lines of paper as coverage 0..1.

    The paper is ruled, squared or dotted, or has margins or the boxes of a form.
    """
    fine = 2  # pixels of the drawing to one of the picture
    mask = Image.new("L", (SIDE * fine, SIDE * fine))
    draw = ImageDraw.Draw(mask)
    angle = rng.uniform(-0.35, 0.35) * (rng.random() < 0.8)
    lean = rng.normal(0, 0.06)
    tilt = rng.normal(0, 0.12, 2) / SIDE
    middle = rng.uniform(0, SIDE, 2)
    far = 2.2 * SIDE

    def at(u: float, v: float) -> tuple[float, float]:
        "Return the place in the drawing of a point of the page."
        w = max(0.3, 1 + tilt[0] * u + tilt[1] * v)
        x = u * math.cos(angle) - v * math.sin(angle + lean)
        y = u * math.sin(angle) + v * math.cos(angle + lean)
        return (x / w + middle[0]) * fine, (y / w + middle[1]) * fine

    def line(u0, v0, u1, v1, width, strength=255):
        steps = np.linspace(0, 1, 9)
        points = [at(u0 + (u1 - u0) * t, v0 + (v1 - v0) * t) for t in steps]
        draw.line(points, fill=int(strength), width=max(1, round(width * fine)))

    pitch = math.exp(rng.uniform(math.log(max(7, 0.25 * height)), math.log(max(20, 2.5 * height))))
    width = min(math.exp(rng.uniform(math.log(0.5), math.log(5))), pitch / 6)
    kind = rng.choice(["ruled", "squared", "boxes", "margin", "dots"],
                      p=[0.3, 0.42, 0.14, 0.1, 0.04])
    marks = np.arange(-far, far, pitch)
    if kind in ("ruled", "squared"):
        for i, v in enumerate(marks):
            heavy = 255 if i % 5 else 255 * rng.uniform(0.7, 1)
            line(-far, v, far, v, width, heavy)
    if kind == "squared":
        other = width * rng.uniform(0.7, 1.3)
        for u in marks + rng.uniform(0, pitch):
            line(u, -far, u, far, other)
    if kind == "margin" or (kind != "boxes" and rng.random() < 0.25):
        for _ in range(rng.integers(1, 3)):
            u = rng.uniform(-0.5, 0.5) * SIDE
            thick = min(6, width * rng.uniform(0.8, 2.5))
            line(*((u, -far, u, far) if rng.random() < 0.75 else (-far, u, far, u)), thick)
    if kind == "boxes":
        size = height * rng.uniform(1.15, 2.2, 2)
        gap = size * rng.choice([0, 0, rng.uniform(0, 0.5)])
        across, down = rng.integers(1, 9), rng.integers(1, 9)
        for i in range(-across, across):
            for j in range(-down, down):
                u, v = np.array([i, j]) * (size + gap)
                thick = min(8, width * 1.5)
                for part in ((u, v, u + size[0], v),
                             (u, v, u, v + size[1]),
                             (u, v + size[1], u + size[0], v + size[1]),
                             (u + size[0], v, u + size[0], v + size[1])):
                    line(*part, thick)
    if kind == "dots":
        for u in marks:
            for v in marks:
                x, y = at(u, v)
                draw.ellipse((x - width, y - width, x + width, y + width), fill=255)
    lines = np.asarray(mask.reduce(fine), np.float32) / 255
    if rng.random() < 0.4:  # badly printed
        lines = lines * (1 - 0.7 * (_clouds(rng, 3, 40) > rng.uniform(0, 2)))
    return lines


def _half_plane(rng: Rng, soft: float) -> np.ndarray:
    "Return 1 on one side of a line that may bend, 0 on the other, with `soft` pixels between."
    y, x = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
    way = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(way) + y * math.sin(way) - rng.uniform(-0.5, 0.3) * SIDE
    if rng.random() < 0.5:
        along = along + _clouds(rng, 60, 200) * rng.uniform(0, 12)
    return (along / max(soft, 0.7) + 0.5).clip(0, 1).astype(np.float32)


def _on_desk(page: np.ndarray, ink: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    "Return a page that ends on a desk, and its ink; the desk has grain, a shadow, and no ink."
    cell = rng.integers(2, 60, 2)
    wood = Image.fromarray(
        rng.standard_normal((SIDE // cell[0] + 2, SIDE // cell[1] + 2), np.float32))
    wood = np.asarray(wood.resize((SIDE, SIDE), Image.BICUBIC)) * rng.uniform(0, 0.2)
    desk = math.exp(rng.uniform(math.log(0.04), math.log(1))) * (1 + wood)
    for _ in range(rng.choice([1, 1, 2])):
        inside = _half_plane(rng, rng.uniform(0.5, 3))
        if rng.random() < 0.5:
            near = ndimage.gaussian_filter(inside, rng.uniform(1, 12))
            desk = desk * (1 - rng.uniform(0, 0.7) * near)
        if rng.random() < 0.15:  # the edge of a thick or torn page
            page = page * (1 + rng.uniform(-0.3, 0.3)
                           * (ndimage.gaussian_filter(1 - inside, 1.5) > 0.1))
        page = page * inside + desk * (1 - inside)
        ink = ink * inside
    return page, ink


def _beside_thing(page: np.ndarray, ink: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    "Return a page and its ink under something much larger than writing: a thumb, cup or stone."
    y, x = np.mgrid[0:SIDE, 0:SIDE] - rng.uniform(0, SIDE, (2, 1, 1))
    way = rng.uniform(0, math.pi)
    sides = rng.uniform(40, 140, 2)
    u = (x * math.cos(way) + y * math.sin(way)) / sides[0]
    v = (y * math.cos(way) - x * math.sin(way)) / sides[1]
    inside = ((1 - np.abs(u)**3 - np.abs(v)**3) * 30 + 0.5).clip(0, 1).astype(np.float32)
    colour = math.exp(rng.uniform(math.log(0.05), math.log(1))) * (1 + 0.1 * _clouds(rng, 10, 80))
    return page * (1 - inside) + colour * inside, ink * (1 - inside)


def _light(rng: Rng) -> np.ndarray:
    "Return light that falls off, with shadows that have soft or sharp edges."
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    way = rng.uniform(0, 2 * math.pi)
    fall = rng.uniform(0, 0.6)
    light = 1 - fall * (x * math.cos(way) + y * math.sin(way) + 0.5)
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        soft = math.exp(rng.uniform(math.log(1.5), math.log(80)))
        if rng.random() < 0.6:
            shadow = _half_plane(rng, soft)
        else:
            shadow = ((_clouds(rng, 40, 160) - rng.uniform(-0.5, 1)) * 60 / soft + 0.5).clip(0, 1)
        light = light * (1 - rng.uniform(0.1, 0.6) * shadow)
    if rng.random() < 0.08:  # a crease, or what shows through from behind
        light = light * (1 - rng.uniform(0, 0.15)
                         * np.exp(-(_clouds(rng, 50, 160) / rng.uniform(0.02, 0.2))**2))
    return light.clip(0.05)


def _taken(picture: np.ndarray, height: float, drawn: bool, rng: Rng) -> np.ndarray:
    """Return a picture, uint8, as a camera, a scanner or a computer keeps it.

    It may be blurred, sharpened, noisy, coarse or compressed.
    """
    picture = picture.clip(0, 1.3).astype(np.float32) ** rng.uniform(0.7, 1.5)
    bright = np.quantile(picture[::4, ::4], 0.95) if rng.random() < 0.8 else 0.8
    picture = picture / max(bright, 0.02) * (
        255 if drawn and rng.random() < 0.5 else rng.uniform(110, 270))
    if not drawn or rng.random() < 0.3:
        blur = (rng.uniform(0.4, 1) if rng.random() < 0.75
                else rng.uniform(0.5, max(0.8, min(4, 0.03 * height))))
        picture = ndimage.gaussian_filter(picture, blur)
        if rng.random() < 0.2:  # motion
            picture = ndimage.uniform_filter1d(
                picture, int(rng.integers(1, max(2, min(8, 0.06 * height + 1)) + 1)),
                axis=int(rng.integers(2)))
    if not drawn:
        noise = rng.uniform(0, 7) if rng.random() < 0.8 else rng.uniform(0, 16)
        picture = (picture + rng.uniform(0, 15)
                   + noise * (0.6 * _grain(rng, 1) + 0.6 * _grain(rng, 2)))
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    if height > 40 and rng.random() < (0.4 if drawn else 0.08):
        image = _coarse(image, height, rng)
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.UnsharpMask(2, int(rng.integers(30, 150)), 2))
    if rng.random() < 0.6:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(30, 96)))
        image = Image.open(file)
    return np.asarray(image)


def _coarse(image: Image.Image, height: float, rng: Rng) -> Image.Image:
    "Return an enlargement, as of a digit of 8 to 28 pixels that somebody has blown up."
    side = max(6, round(SIDE * rng.uniform(8, 28) / height))
    ways = [Image.Resampling.NEAREST, Image.Resampling.NEAREST, Image.Resampling.BILINEAR,
            Image.Resampling.BICUBIC]
    image = image.resize((side, side), Image.Resampling.BOX)
    if rng.random() < 0.3:  # twice
        image = image.resize((2 * side, 2 * side), ways[2]).convert("L")
    return image.resize((SIDE, SIDE), ways[rng.integers(len(ways))])
