"""Ink in both ways of seeing it: made pictures, of which is known where the ink is."""
import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast.errors import BadSetting
from digitfast.reading.ink import Ink, find_inks
from digitfast.synthetic.pages import synthetic_page

DIGIT = ((200, 120), (320, 120), (240, 330))  # a 7


def page(paper=230, ink=40, size=(600, 450), width=14) -> np.ndarray:
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).line(DIGIT, fill=ink, width=width)
    return np.asarray(image)


def truth(width=14) -> np.ndarray:
    return page(0, 255, width=width) > 0


@pytest.fixture(params=["top-hat", "network"])
def find_ink(request):
    "One way to see the ink."
    def found(grey: np.ndarray, ink: str = "auto") -> Ink:
        ways = list(find_inks(grey, ink))
        return ways[0] if request.param == "top-hat" else ways[-1]
    return found


def agrees(density, wanted, least=0.8):
    "Whether ink was found where it is, and hardly elsewhere (intersection over union)."
    found = density > 0.5
    return (found & wanted).sum() / max(1, (found | wanted).sum()) > least


@pytest.mark.parametrize("paper, ink", [(230, 40), (120, 40), (30, 200), (90, 230)])
def test_polarity_is_seen(find_ink, paper, ink):
    found = find_ink(page(paper, ink))
    assert found.dark == (ink < paper) and agrees(found.density, truth())


@pytest.mark.parametrize("seed", [30, 37, 65])
def test_light_squares_between_dark_lines_are_no_light_ink(find_ink, seed):
    bar = np.zeros((28, 28), np.uint8)
    bar[4:24, 13:16] = 255
    squared = synthetic_page(np.stack([bar] * 30), np.random.default_rng(seed), (1200, 900)).image
    assert find_ink(np.asarray(squared.convert("L"))).dark


def test_polarity_can_be_told_and_other_names_cannot(find_ink):
    assert find_ink(page(), "dark").dark and not find_ink(page(), "light").dark
    with pytest.raises(BadSetting, match="auto, dark, light"):
        find_ink(page(), "blue")


@pytest.mark.parametrize("paper, ink", [(255, 0), (230, 40), (30, 200)])
def test_all_of_a_drawing_is_ink(paper, ink):
    "A straight line over the whole page, which is a ruled one in a photo, is a stroke there."
    drawn = np.zeros((200, 300), bool)
    drawn[100:106, 10:290] = drawn[30:170, 150:156] = True
    grey = np.where(drawn, ink, paper).astype(np.uint8)
    found, = find_inks(grey, "drawing")
    assert found.dark == (ink < paper)
    assert np.array_equal(found.density, drawn)
    as_photo = [way.density[103, 20:280].mean() for way in find_inks(grey)]
    assert as_photo[0] > 0.9 and as_photo[1] < 0.5  # one of two ways takes it for a ruled one


@pytest.mark.parametrize("slope", [0, 0.03, 1])
@pytest.mark.parametrize("width", [1, 2, 5, 30])
def test_a_stroke_on_white_paper_stays_whole(width, slope):
    "Level, hardly falling, or steep; the network loses thin ones, the top-hat none."
    image = Image.new("L", (400, 300), 255)
    ImageDraw.Draw(image).line([(120, 100), (260, 100 + 140 * slope)], fill=30, width=width)
    grey = np.asarray(image)
    assert agrees(next(find_inks(grey)).density, grey < 128, 0.85)


@pytest.mark.parametrize("light", ["gradient", "shadow", "noise"])
def test_uneven_light(find_ink, light):
    y, x = np.mgrid[0:450, 0:600]
    shadow = 1 - 0.45 / (1 + np.exp((x - y - 60) / 25))
    factor = {"gradient": 0.4 + 0.6 * x / 600, "shadow": shadow, "noise": 1.0}[light]
    grain = np.random.default_rng(1).normal(0, 6 if light == "noise" else 2, (450, 600))
    grey = np.clip(page() * factor + grain, 0, 255).astype(np.uint8)
    assert agrees(find_ink(grey).density, truth(), 0.7)


@pytest.mark.parametrize("find_ink, angle, squares", [
    *((way, angle, False) for way in ("top-hat", "network") for angle in (0, 4, -9)),
    *(("network", angle, True) for angle in (0, 4, -9)), ("top-hat", 0, True)],
    indirect=["find_ink"])
def test_lines_of_the_paper_go_and_ink_stays(find_ink, angle, squares):
    lines = Image.new("L", (900, 900), 255)
    draw = ImageDraw.Draw(lines)
    for at in range(0, 900, 45):
        draw.line((0, at, 900, at), fill=170, width=2)
        if squares:
            draw.line((at, 0, at, 900), fill=170, width=2)
    lines = np.asarray(lines.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255))[
        220:670, 150:750
    ]
    assert agrees(find_ink(np.minimum(page(), lines)).density, truth(), 0.75)


def test_empty_pages_have_no_ink(find_ink):
    rng = np.random.default_rng(0)
    for grain in (0, 3, 8):
        grey = np.clip(200 + rng.normal(0, grain, (400, 500)), 0, 255).astype(np.uint8)
        assert (find_ink(grey).density > 0.5).mean() < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (28, 28), (64, 64), (65, 2000)])
def test_odd_shapes(find_ink, shape):
    grey = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    density = find_ink(grey).density
    assert density.shape == shape and density.min() >= 0 and density.max() <= 1


def test_a_digit_cut_out_keeps_its_greys(find_ink):
    small = np.zeros((28, 28), np.uint8)
    small[6:22, 13:16] = [120, 255, 60]
    assert (find_ink(small).density * 255).round().astype(int).tolist() == small.tolist()
    assert np.allclose(find_ink(255 - small).density, small / 255, atol=0.01)


@pytest.mark.parametrize(
    "factor, how",
    [(8, Image.Resampling.NEAREST), (20, Image.Resampling.NEAREST), (12, Image.Resampling.BICUBIC)],
)
def test_an_enlargement_of_a_small_digit_is_found_whole(find_ink, factor, how):
    small = Image.fromarray(page(size=(560, 560), width=40)).resize((28, 28), Image.Resampling.BOX)
    large = np.asarray(small.resize((28 * factor, 28 * factor), how))
    assert agrees(find_ink(large).density, large < 135, 0.7)


@pytest.mark.parametrize("size", [(400, 300), (3000, 2000)])
def test_thick_and_thin_strokes_in_small_and_large_pictures(find_ink, size):
    for part in (0.012, 0.08):
        image = Image.new("L", size, 220)
        h = size[1]
        curve = [
            (x * h, y * h)
            for x, y in ((0.5, 0.3), (0.8, 0.25), (0.85, 0.45), (0.55, 0.7), (0.9, 0.75))
        ]
        truth = Image.new("L", size)
        for canvas, level in ((image, 50), (truth, 255)):
            ImageDraw.Draw(canvas).line(
                curve, fill=level, width=max(3, round(part * h)), joint="curve"
            )
        assert agrees(find_ink(np.asarray(image)).density, np.asarray(truth) > 0, 0.6)


def test_small_writing_on_a_large_page_is_looked_at_closely(find_ink):
    page, truth = Image.new("L", (2000, 1500), 225), Image.new("L", (2000, 1500))
    for canvas, level in ((page, 60), (truth, 255)):
        draw = ImageDraw.Draw(canvas)
        for y in range(100, 1400, 60):
            for x in range(100, 1900, 40):
                draw.line([(x, y), (x + 14, y), (x + 5, y + 24)], fill=level, width=2)
    assert agrees(find_ink(np.asarray(page)).density, np.asarray(truth) > 0, 0.55)
