import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast.errors import BadSetting
from digitfast.reading import ink as inks
from digitfast.reading.ink import find_ink
from digitfast.synthetic.pages import synthetic_page

DIGIT = ((200, 120), (320, 120), (240, 330))  # a 7


def page(paper=230, ink=40, size=(600, 450), width=14) -> np.ndarray:
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).line(DIGIT, fill=ink, width=width)
    return np.asarray(image)


def truth(width=14) -> np.ndarray:
    return page(0, 255, width=width) > 0


def agrees(density, wanted, least=0.8):
    "Whether ink was found where it is, and hardly elsewhere (intersection over union)."
    found = density > 0.5
    return (found & wanted).sum() / max(1, (found | wanted).sum()) > least


@pytest.mark.parametrize("paper, ink", [(230, 40), (120, 40), (30, 200), (90, 230)])
def test_polarity_is_seen(paper, ink):
    found = find_ink(page(paper, ink))
    assert found.dark == (ink < paper) and agrees(found.density, truth())


@pytest.mark.parametrize("seed", [30, 37, 65])
def test_light_squares_between_dark_lines_are_no_light_ink(seed):
    bar = np.zeros((28, 28), np.uint8)
    bar[4:24, 13:16] = 255
    squared = synthetic_page(np.stack([bar] * 30), np.random.default_rng(seed), (1200, 900)).image
    assert find_ink(np.asarray(squared.convert("L"))).dark


def test_polarity_can_be_told_and_other_names_cannot():
    assert find_ink(page(), "dark").dark and not find_ink(page(), "light").dark
    with pytest.raises(BadSetting, match="auto, dark, light"):
        find_ink(page(), "blue")


@pytest.mark.parametrize("paper, ink", [(255, 0), (230, 40), (30, 200)])
def test_all_of_a_drawing_is_ink(paper, ink):
    "A straight line over the whole page is a ruled one in a photo, and a stroke in a drawing."
    drawn = np.zeros((200, 300), bool)
    drawn[100:106, 10:290] = drawn[30:170, 150:156] = True
    grey = np.where(drawn, ink, paper).astype(np.uint8)
    found = find_ink(grey, "drawing")
    assert found.dark == (ink < paper) and np.array_equal(found.density, drawn)
    assert find_ink(grey).density[103, 20:280].mean() < 0.5


@pytest.mark.parametrize("light", ["gradient", "shadow", "noise"])
def test_uneven_light(light):
    y, x = np.mgrid[0:450, 0:600]
    shadow = 1 - 0.45 / (1 + np.exp((x - y - 60) / 25))
    factor = {"gradient": 0.4 + 0.6 * x / 600, "shadow": shadow, "noise": 1.0}[light]
    grain = np.random.default_rng(1).normal(0, 6 if light == "noise" else 2, (450, 600))
    grey = np.clip(page() * factor + grain, 0, 255).astype(np.uint8)
    assert agrees(find_ink(grey).density, truth(), 0.7)


@pytest.mark.parametrize("angle", [0, 4, -9])
@pytest.mark.parametrize("squares", [False, True])
def test_lines_of_the_paper_go_and_ink_stays(angle, squares):
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


def test_empty_pages_have_no_ink():
    rng = np.random.default_rng(0)
    for grain in (0, 3, 8):
        grey = np.clip(200 + rng.normal(0, grain, (400, 500)), 0, 255).astype(np.uint8)
        assert (find_ink(grey).density > 0.5).mean() < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (28, 28), (64, 64), (65, 2000)])
def test_odd_shapes(shape):
    grey = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    density = find_ink(grey).density
    assert density.shape == shape and density.min() >= 0 and density.max() <= 1


def test_a_digit_cut_out_keeps_its_greys():
    small = np.zeros((28, 28), np.uint8)
    small[6:22, 13:16] = [120, 255, 60]
    assert (find_ink(small).density * 255).round().astype(int).tolist() == small.tolist()
    assert np.allclose(find_ink(255 - small).density, small / 255, atol=0.01)


@pytest.mark.parametrize(
    "factor, how",
    [(8, Image.Resampling.NEAREST), (20, Image.Resampling.NEAREST), (12, Image.Resampling.BICUBIC)],
)
def test_an_enlargement_of_a_small_digit_is_found_whole(factor, how):
    small = Image.fromarray(page(size=(560, 560), width=40)).resize((28, 28), Image.Resampling.BOX)
    large = np.asarray(small.resize((28 * factor, 28 * factor), how))
    assert agrees(find_ink(large).density, large < 135, 0.7)


@pytest.mark.parametrize("size", [(400, 300), (3000, 2000)])
def test_thick_and_thin_strokes_in_small_and_large_pictures(size):
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


def test_small_writing_on_a_large_page_is_looked_at_closely():
    page, truth = Image.new("L", (2000, 1500), 225), Image.new("L", (2000, 1500))
    for canvas, level in ((page, 60), (truth, 255)):
        draw = ImageDraw.Draw(canvas)
        for y in range(100, 1400, 60):
            for x in range(100, 1900, 40):
                draw.line([(x, y), (x + 14, y), (x + 5, y + 24)], fill=level, width=2)
    assert agrees(find_ink(np.asarray(page)).density, np.asarray(truth) > 0, 0.55)


def test_a_large_picture_is_looked_at_closely_only_where_there_is_ink(monkeypatch):
    looked_at, chances = [], inks.ink_chances
    monkeypatch.setattr(
        inks, "ink_chances", lambda grey: looked_at.append(grey.size) or chances(grey)
    )
    large = np.full((1500, 2000), 225, np.uint8)
    large[1000:1450, 1300:1900] = page(225, width=6)
    wanted = np.zeros(large.shape, bool)
    wanted[1000:1450, 1300:1900] = truth(6)
    assert agrees(find_ink(large).density, wanted, 0.6)
    assert len(looked_at) > 1 and sum(looked_at[1:]) < 0.2 * large.size


def test_the_typical_stroke_is_a_digits_beside_a_patch_and_a_line():
    shape = np.zeros((300, 400), np.float32)
    for left in (20, 60, 100):
        shape[100:160, left:left + 6] = 1
    assert inks._typical_width(shape) == pytest.approx(6, abs=1)
    shape[200:290, 200:390] = 1  # a shadow, far larger than all digits
    assert inks._typical_width(shape) == pytest.approx(6, abs=1)
    shape[20:22, 5:395] = 1  # what is left of a ruled line
    assert inks._typical_width(shape) == pytest.approx(6, abs=1)


def test_ink_that_is_sure_nowhere_is_none_but_faint_ends_of_sure_ink_stay():
    ink = np.zeros((40, 60), np.float32)
    ink[10:30, 10:12], ink[20:30, 10:12] = 1, 0.4  # a stroke that fades
    ink[5:35, 50:53] = 0.8  # the edge of a desk
    sure = inks._sure(ink)
    assert np.array_equal(sure[:, :40], ink[:, :40]) and not sure[:, 45:].any()
    assert np.array_equal(inks._sure(ink[:, 40:]), ink[:, 40:])  # by itself it is all there is
    assert not inks._sure(np.zeros((40, 60), np.float32)).any()


@pytest.mark.parametrize("written", [True, False])
def test_what_is_seen_only_from_near_by_is_no_ink_where_there_is_other(written, monkeypatch):
    "As the grain of wood is; writing that is too thin to be seen from afar is all there is."
    def chances(grey):
        ink = np.zeros(grey.shape, np.float32)
        ink[:, -4:] = written
        ink[:9, :40] = grey.shape[1] > 600
        return ink

    monkeypatch.setattr(inks, "ink_chances", chances)
    found = inks._at_good_scale(np.full((1500, 2000), 200, np.uint8))
    assert (found[:, -2:] == written).all() and (found[:5, :30] == (not written)).all()
