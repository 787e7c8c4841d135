import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import binary_fill_holes

from digitfast.reading.cuts import candidates, cut_pieces, cut_touching
from digitfast.reading.lines import line_height, may_be_one, text_lines
from digitfast.reading.pieces import Piece, find_pieces, join, typical_width


def ink(*boxes: tuple[int, int, int, int], shape=(200, 400)) -> np.ndarray:
    density = np.zeros(shape, np.float32)
    for left, top, right, bottom in boxes:
        density[top:bottom, left:right] = 1
    return density


def test_pieces_are_connected_ink_and_specks_are_dropped():
    pieces = find_pieces(ink((20, 40, 40, 100), (80, 40, 110, 100), (300, 10, 303, 13)))
    assert sorted((p.left + 1, p.top + 1, p.right - 1, p.bottom - 1) for p in pieces) == [
        (20, 40, 40, 100), (80, 40, 110, 100)]
    assert find_pieces(ink()) == [] == find_pieces(ink((20, 20, 25, 25), (90, 90, 95, 94)))


def test_a_frame_around_digits_is_no_digit():
    boxes = ((5, 5, 395, 8), (5, 192, 395, 195), (5, 5, 8, 195), (392, 5, 395, 195))
    pieces = find_pieces(ink(*boxes, (50, 60, 70, 120), (100, 60, 120, 120)))
    assert len(pieces) == 2


def test_shapes_that_lie_around_each_other_without_end_are_not_all_kept():
    density = np.zeros((600, 600), np.float32)
    for i in range(10, 580, 6):  # an L in an L, a hundred times
        density[i:i + 2, i:590] = density[i:590, i:i + 2] = 1
    areas = [p.height * p.width for p in find_pieces(density)]
    assert len(areas) > 20 and sum(areas) < 9 * density.size < sum(
        (590 - i) ** 2 for i in range(10, 580, 6)
    )


def test_lines_are_read_from_top_to_bottom_even_where_they_fall():
    boxes = [(20 + 60 * i, 20 + 8 * i, 45 + 60 * i, 60 + 8 * i) for i in range(5)]
    boxes += [(20 + 60 * i, 110 + 8 * i, 45 + 60 * i, 150 + 8 * i) for i in range(5)]
    lines = text_lines(find_pieces(ink(*reversed(boxes))))
    assert [[p.left + 1 for p in line] for line in lines] == [[20, 80, 140, 200, 260]] * 2
    assert lines[0][0].top < lines[1][0].top and abs(line_height(lines[0]) - 42) < 3


def test_touching_shapes_can_be_cut_where_they_touch():
    density = ink((20, 40, 60, 100), (64, 40, 104, 100), (60, 68, 64, 72))
    piece, = find_pieces(density)
    parts = cut_touching([piece, Piece(200, 40, np.ones((60, 30), np.float32))])
    assert len({p.cut_from for p in parts if p.cut_from}) == 1 and len(parts) >= 3
    assert any(58 <= p.right <= 66 + 9 for p in parts)  # with a stroke that both sides share
    whole = join([p for p in parts if p.cut_from])
    assert (whole.ink > 0.3).sum() == (piece.ink > 0.3).sum()


def test_candidates_hold_each_part_and_no_run_that_is_too_wide():
    parts = [Piece(x, 0, np.ones((60, 30), np.float32)) for x in (0, 40, 300)]
    runs = candidates(parts)
    assert {(0, 1), (1, 2), (2, 3), (0, 2)} == set(runs)


def test_a_digit_that_dances_stays_in_its_line():
    feet = [100, 112, 84, 114, 102, 96]  # the third is far above its neighbours
    boxes = [(20 + 50 * i, foot - 44, 50 + 50 * i, foot) for i, foot in enumerate(feet)]
    assert [len(line) for line in text_lines(find_pieces(ink(*boxes)))] == [6]


def test_what_was_cut_too_often_can_be_whole_again():
    y, x = np.mgrid[0:120, 0:170]
    radius = np.hypot((x - 85) / 75, (y - 60) / 52)
    wide_zero = Piece(0, 0, ((radius < 1) & (radius > 0.82)).astype(np.float32))
    parts = cut_touching([wide_zero])
    assert len(parts) > 3 and (0, len(parts)) in candidates(parts)


def test_a_piece_that_was_cut_is_a_candidate_however_wide_and_as_high_as_before():
    letter = Image.new("L", (300, 200))
    for stroke in ([(40, 170), (150, 30), (260, 170)], [(80, 115), (220, 115)]):  # an A
        ImageDraw.Draw(letter).line(stroke, fill=255, width=7)
    piece, = find_pieces(np.asarray(letter, np.float32) / 255)
    parts = cut_touching([Piece(0, 30, np.ones((140, 12), np.float32)), piece])
    (start, stop), = cut_pieces(parts)
    assert start == 1 and stop == len(parts) > 3 and (start, stop) in candidates(parts)
    assert abs(line_height(parts) - piece.height) <= 2  # without its rim
    assert max(part.height for part in parts[1:]) < 0.9 * piece.height
    assert cut_pieces([]) == cut_pieces(parts[:1]) == []
    wave = np.abs(np.arange(48)[:, None] - 4 - np.abs(np.arange(400) % 80 - 40)) < 4.5
    parts = cut_touching([Piece(0, 0, wave.astype(np.float32))])
    assert cut_pieces(parts) == [(0, len(parts))] and (0, len(parts)) in candidates(parts)


def test_a_broken_stroke_may_be_one_digit_and_two_lines_or_an_underline_are_none():
    def at(left, top, width, height):
        return [Piece(left, top, np.ones((height, width), np.float32))]

    upper = at(100, 100, 50, 60)
    assert may_be_one(upper, at(90, 165, 50, 40)) and may_be_one(upper, at(90, 155, 50, 40))
    assert not may_be_one(upper, at(90, 185, 50, 40))  # below at a distance
    assert not may_be_one(upper, at(190, 165, 50, 40))  # beside at a distance
    assert not may_be_one(upper, at(90, 165, 70, 12))  # an underline
    assert not may_be_one([*upper, *at(300, 100, 50, 60)], at(90, 165, 50, 40))  # a row of several


def test_the_bar_of_a_5_is_not_cut():
    y, x = np.mgrid[0:30, 0:90]
    bar = Piece(60, 0, (np.abs(y - 26 + x / 4) < 3).astype(np.float32))
    body = Piece(20, 10, np.ones((80, 30), np.float32))
    assert cut_touching([body, bar]) == [body, bar]


def bars(*rows: tuple[int, int], lefts=range(60, 360, 40)) -> list[tuple[int, int, int, int]]:
    "Upright strokes 6 pixels wide, in rows of that top and height."
    return [(left, top, left + 6, top + height) for top, height in rows for left in lefts]


def test_a_pen_on_the_page_neither_decides_what_is_small_nor_joins_the_lines_beside_it():
    rows = bars((20, 30), (80, 30), (140, 30))
    lines = text_lines(find_pieces(ink((10, 5, 45, 195), *rows)))
    assert sorted(len(line) for line in lines) == [1, 8, 8, 8]
    assert [line[0].top + 1 for line in lines if len(line) > 1] == [20, 80, 140]


def test_small_writing_below_a_title_is_in_lines_of_its_own():
    title, long_title = (
        [(left, 10, left + 20, 110) for left in range(60, end, 40)] for end in (140, 360)
    )
    for large, small in ((title, bars((165, 30))), (long_title, bars((165, 30), lefts=[60, 120]))):
        lines = text_lines(find_pieces(ink(*large, *small)))
        assert [[p.left + 1 for p in line] for line in lines] == [
            [b[0] for b in large],
            [b[0] for b in small],
        ]


def test_columns_of_a_table_are_read_row_by_row():
    boxes = [
        (left, top + jitter, left + 4, top + 12 + jitter)
        for top, sign in ((20, 1), (50, -1), (80, 1), (110, -1))
        for left, jitter in ((20, sign), (28, 0), (200, -sign), (380, 2 * sign))
    ]
    lines = text_lines(find_pieces(ink(*boxes)))
    assert [[p.left + 1 for p in line] for line in lines] == [[20, 28, 200, 380]] * 4


def test_round_digits_that_share_a_stroke_both_keep_it():
    image = Image.new("L", (220, 120))
    for left in (20, 92):
        ImageDraw.Draw(image).ellipse((left, 20, left + 80, 100), outline=255, width=8)
    piece, = find_pieces(np.asarray(image, np.float32) / 255)
    parts = cut_touching([piece])
    runs = [join(parts[start:stop]) for start, stop in candidates(parts)]
    rings = [run for run in runs if is_ring(run) and 70 < run.width < 95]
    assert min(ring.left for ring in rings) < 25
    assert max(ring.right for ring in rings) > 165
    first = min(rings, key=lambda ring: (ring.left, ring.width))
    assert first.right <= 102  # and no arm of the other one


def test_a_small_digit_stays_beside_its_neighbour():
    tall = [(20 + 60 * i, top, 50 + 60 * i, top + 80) for i in range(4) for top in (20, 130)]
    small = (270, 140, 295, 172)  # nearer to the line above than to the digit on its left
    lines = text_lines(find_pieces(ink(*tall, (260, 20, 290, 115), small)))
    assert [len(line) for line in lines] == [5, 5]


def is_ring(piece: Piece) -> bool:
    shape = piece.ink > 0.3
    return binary_fill_holes(shape).sum() > 1.5 * shape.sum()


def test_the_typical_stroke_is_a_digits_beside_a_patch_and_a_line():
    shape = np.zeros((300, 400), np.float32)
    for left in (20, 60, 100):
        shape[100:160, left:left + 6] = 1
    assert typical_width(shape > 0.5) == pytest.approx(6, abs=1)
    shape[200:290, 200:390] = 1  # a shadow, far larger than all digits
    assert typical_width(shape > 0.5) == pytest.approx(6, abs=1)
    shape[20:22, 5:395] = 1  # what is left of a ruled line
    assert typical_width(shape > 0.5) == pytest.approx(6, abs=1)
