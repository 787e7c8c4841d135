"""How well the bundled reader learns a hand from a few drawings: UNIPEN's held-out writers.

    python tools/reader/own_hand.py UNIPEN_FOLDER

UNIPEN_FOLDER is as for train.py. Of each writer with at least 7 drawings of every digit 5, drawn
at random, are learned from, as `digitfast fit --from reader --source FOLDER --replay 0.5` does, and
the others are answered before and after.
"""
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw
from train import is_held_out, mnist_images, read_characters_of
from unipen import Character

from digitfast import Predictor, mnist_form, train_run

SEED = 0  # chooses the drawings to learn from
LEARNED = 5  # drawings per digit
LEAST = 7  # drawings per digit of a writer


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    test = mnist_images("testing")
    images, labels = test.pixels.numpy(), test.labels.numpy()
    reader = Predictor.packed()
    mnist = errors(reader, images, labels)
    total = np.zeros(3, int)
    for writer, of_digit in writers(Path(sys.argv[1])).items():
        own, own_labels = others(of_digit)
        with TemporaryDirectory() as folder:
            keep_first(of_digit, Path(folder) / "mine")
            run = train_run(f"{folder}/mine", start="reader", replay=0.5, runs=folder)
            network = run.predictor()
        before, after = (errors(p, own, own_labels) for p in (reader, network))
        lost = (errors(network, images, labels) - mnist) / len(labels)
        total += (len(own), before, after)
        print(f"{writer}: {len(own)} drawings, {before} wrong before, {after} after; MNIST's test "
              f"images lose {100 * lost:.2f} points; {run.summary['seconds']['total']} s")
    print("all: {} drawings, {} wrong before, {} after".format(*total))


def writers(folder: Path) -> dict[str, dict[str, list[Character]]]:
    "Return the drawings of each held-out writer, by digit, in random order."
    rng = np.random.default_rng(SEED)
    found: dict = defaultdict(lambda: defaultdict(list))
    for character in read_characters_of(folder)[0]:
        if is_held_out(character.writer):
            found[character.writer][character.label].append(character)
    return {writer: {label: [of_digit[label][i] for i in rng.permutation(len(of_digit[label]))]
                     for label in sorted(of_digit)} for writer, of_digit in found.items()
            if len(of_digit) == 10 and min(map(len, of_digit.values())) >= LEAST}


def keep_first(of_digit: dict[str, list[Character]], folder: Path) -> None:
    "Write the drawings to learn from, as the draw page keeps them."
    for label, characters in of_digit.items():
        (folder / label).mkdir(parents=True)
        for i, character in enumerate(characters[:LEARNED]):
            drawn(character).save(folder / label / f"{i}.png")


def others(of_digit: dict[str, list[Character]]) -> tuple[np.ndarray, np.ndarray]:
    "Return the other drawings in MNIST's form, uint8 `[n, 28, 28]`, and their labels."
    chosen = [c for characters in of_digit.values() for c in characters[LEARNED:]]
    forms = [mnist_form(1 - np.asarray(drawn(c), np.float32) / 255) for c in chosen]
    return np.stack(forms), np.array([int(c.label) for c in chosen])


def drawn(character: Character, side: int = 200, pen: int = 14, room: int = 40) -> Image.Image:
    "Return the character in black on white, in mode L; sizes are in pixels."
    zoom = 2  # for smooth edges
    points = np.concatenate(character.strokes)
    scale = side / max(*np.ptp(points, axis=0), 1e-6)
    strokes = [((stroke - points.min(0)) * scale + room) * zoom for stroke in character.strokes]
    size = np.ceil(np.concatenate(strokes).max(0) + room * zoom).astype(int)
    paper = Image.new("L", tuple(size.tolist()), 255)
    on = ImageDraw.Draw(paper)
    for stroke in strokes:
        path = [tuple(point) for point in stroke.tolist()]
        if len(path) > 1:
            on.line(path, fill=0, width=pen * zoom, joint="curve")
        for x, y in (path[0], path[-1]):
            radius = pen * zoom / 2
            on.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return paper.reduce(zoom)


def errors(predictor: Predictor, images: np.ndarray, labels: np.ndarray) -> int:
    "Return how often the likeliest digit is not the label."
    return int((predictor.chances(images)[:, :-1].argmax(1) != labels).sum())


if __name__ == "__main__":
    main()
