"""Train the network that reads pictures, on MNIST's training images and UNIPEN's pen strokes.

    python tools/reader/train.py UNIPEN_FOLDER OUT.safetensors [EPOCHS]

UNIPEN_FOLDER is `train_r01_v07` of doi 10.5281/zenodo.1195803. A tenth of MNIST's training images
and an eighth of UNIPEN's writers are held out: for the temperature, the threshold, and what is
printed after each epoch. MNIST's test images are used once, at the end, for the accuracy that the
file states.
"""
import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastai.vision.core import TensorImage
from PIL import Image
from render import render
from sklearn.metrics import roc_auc_score
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from unipen import Character, read_characters

from digitfast import digits_path
from digitfast.data.augment import RandomAffine
from digitfast.evaluation.accuracy import accuracy_interval
from digitfast.inference.calibration import calibrate, probabilities
from digitfast.inference.predictor import Predictor, save_predictor
from digitfast.inference.torch_network import TorchNetwork
from digitfast.models.digit_nets import digit_net_deep, with_no_digit
from digitfast.synthetic.non_digits import non_digits

SEED = 42
NO_DIGIT = 10  # label of what is no digit
N_DRAWINGS = 6  # of each of the strangers' digits
LOOK_ALIKES = frozenset("OolIiSsZzqgbB")  # letters that many people write like a digit
UPRIGHT_SIGNS = frozenset("()[]{}|/\\!'`,;$")  # signs that could be a 1, or an 8
WRONG_LABELS = Path(__file__).with_name("wrong_labels.txt")


@dataclass(frozen=True, eq=False, kw_only=True)
class Images:
    "Images in MNIST's form with their labels."
    pixels: torch.Tensor  # uint8 `[n, 28, 28]`, 0 = paper to 255 = ink
    labels: torch.Tensor  # int64 `[n]`, 0..9 or `NO_DIGIT`

    def __add__(self, other: "Images") -> "Images":
        return Images(pixels=torch.cat([self.pixels, other.pixels]),
                      labels=torch.cat([self.labels, other.labels]))

    def __getitem__(self, chosen: slice | torch.Tensor) -> "Images":
        return Images(pixels=self.pixels[chosen], labels=self.labels[chosen])

    def sample(self, n: int) -> "Images":
        "Return `n` of the images, drawn at random."
        return self[torch.randperm(len(self.labels))[:n]]


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    epochs = int(sys.argv[3]) if len(sys.argv) == 4 else 10
    torch.manual_seed(SEED)
    mnist = mnist_images("training")
    mnist = mnist.sample(len(mnist.labels))
    n_held_out = len(mnist.labels) // 10
    held_out = {"MNIST": mnist[:n_held_out]}
    mnist = mnist[n_held_out:]
    digits, others = read_characters_of(folder)
    held_out["strangers"] = draw([c for c in digits if is_held_out(c.writer)])
    held_out["no digits"] = draw([c for c in others if is_held_out(c.writer)])
    digits = [c for c in digits if not is_held_out(c.writer)]
    strangers = draw(digits, times=N_DRAWINGS)
    no_digits = draw([c for c in others if not is_held_out(c.writer)]) + drawn_non_digits(mnist)
    print(f"{len(mnist.labels):,} images of MNIST; {len(digits):,} digits of UNIPEN in "
          f"{N_DRAWINGS} drawings each; {len(no_digits.labels):,} images of what is no digit; "
          "held out:", ", ".join(f"{len(part.labels):,} {name}" for name, part in held_out.items()),
          flush=True)
    model = train(mnist, strangers, no_digits, held_out, epochs)
    save(model, held_out, out)
    print(separation(model, held_out))


def mnist_images(split: str) -> Images:
    "Return MNIST's images of a split, in the order of their numbers."
    files = sorted((digits_path() / split).glob("*/*.png"), key=lambda file: int(file.stem))
    return Images(pixels=torch.from_numpy(np.stack([np.asarray(Image.open(f)) for f in files])),
                  labels=torch.tensor([int(file.parent.name) for file in files]))


def read_characters_of(folder: Path) -> tuple[list[Character], list[Character]]:
    "Return UNIPEN's digits, and those of its letters and signs that nobody takes for one."
    wrong = set(WRONG_LABELS.read_text().splitlines())
    digits = [c for c in read_characters(folder, "1a") if c.name not in wrong and _has_size(c)]
    others = [c for kind in ("1b", "1c", "1d") for c in read_characters(folder, kind)
              if c.label not in LOOK_ALIKES | UPRIGHT_SIGNS and _has_size(c)]
    return digits, others


def _has_size(character: Character) -> bool:
    "Whether the pen moved at all: some segments name a mere dot."
    return bool(np.ptp(np.concatenate(character.strokes), axis=0).max() > 0)


def is_held_out(writer: str) -> bool:
    "Whether a writer is one of the eighth that the network is not trained on."
    return hashlib.sha256(writer.encode()).digest()[0] % 8 == 0


def draw(characters: Sequence[Character], times: int = 1) -> Images:
    "Return each character in several drawings, by pens drawn at random, on all processor cores."
    seeded = [(c.strokes, SEED + i) for i, c in enumerate(characters)]
    with ProcessPoolExecutor() as pool:
        drawings = list(pool.map(partial(_draw, times=times), seeded, chunksize=200))
    labels = [int(c.label) if c.label.isdigit() else NO_DIGIT for c in characters]
    return Images(pixels=torch.from_numpy(np.concatenate(drawings)),
                  labels=torch.tensor(labels).repeat_interleave(times))


def _draw(seeded: tuple[Sequence[np.ndarray], int], times: int) -> np.ndarray:
    strokes, seed = seeded
    rng = np.random.default_rng(seed)
    return np.stack([render(strokes, rng) for _ in range(times)])


def drawn_non_digits(mnist: Images, n: int = 12_000) -> Images:
    "Return images of scribbles, type, joined digits and the like."
    pixels = non_digits(n, mnist.pixels.numpy(), mnist.labels.numpy(), np.random.default_rng(SEED))
    return Images(pixels=torch.from_numpy(pixels), labels=torch.full((n,), NO_DIGIT))


def train(
    mnist: Images,
    strangers: Images,  # UNIPEN's digits, in several drawings each
    no_digits: Images,
    held_out: dict[str, Images],
    epochs: int,
    bs: int = 128,  # images per batch
    lr: float = 0.01,  # highest learning rate
) -> torch.nn.Module:
    """Return a network trained with AdamW in one cycle; its weights are a running mean.

    Each epoch takes all of MNIST, as many of the strangers' digits, and half as many of what is no
    digit.
    """
    n = len(mnist.labels)
    model = digit_net_deep().to(memory_format=torch.channels_last)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    n_batches = (2 * n + n // 2) // bs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * n_batches)
    augment = RandomAffine(0.8)
    for epoch in range(epochs):
        images = mnist + strangers.sample(n) + no_digits.sample(n // 2)
        model.train()
        for chosen in torch.randperm(len(images.labels))[:n_batches * bs].split(bs):
            pixels = TensorImage(images.pixels[chosen, None].float() / 255)
            x = augment(pixels, split_idx=0).as_subclass(torch.Tensor)
            loss = F.cross_entropy(with_no_digit(model(x)), images.labels[chosen],
                                   label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            mean.update_parameters(model)
        print(f"epoch {epoch + 1} of {epochs}: {described(mean.module, held_out)}", flush=True)
    return mean.module


def logits_of(model: torch.nn.Module, images: Images) -> np.ndarray:
    "Return float32 `[n, 10]`."
    network = TorchNetwork(model)
    return np.concatenate([network(part[:, None].numpy().astype(np.float32) / 255)
                           for part in images.pixels.split(1000)])


def described(model: torch.nn.Module, held_out: dict[str, Images]) -> str:
    "Return how the held-out images are answered, in words."
    chances = {name: probabilities(logits_of(model, images), no_digit=True)
               for name, images in held_out.items()}
    parts = []
    for name in ("MNIST", "strangers"):
        labels = held_out[name].labels.numpy()
        guess = (chances[name][:, :-1].argmax(1) == labels).mean()
        right = (chances[name].argmax(1) == labels).mean()
        parts.append(f"{name} {guess:.2%} right as the first guess, {right:.2%} with \"no digit\"")
    limit = np.quantile(chances["MNIST"][:, -1], 0.99)  # 1 % of MNIST is refused
    refused = (chances["no digits"][:, -1] > limit).mean()
    return "; ".join([*parts, f"{refused:.2%} of no digits refused where 1 % of MNIST is"])


def separation(model: torch.nn.Module, held_out: dict[str, Images]) -> str:
    """Return how well "no digit" tells letters and signs from the strangers' digits, in words.

    AUROC: how often a letter is less of a digit than a digit is. FPR: letters that are taken for
    digits where 95 % of the digits are.
    """
    letters, digits = (probabilities(logits_of(model, held_out[name]), no_digit=True)[:, -1]
                       for name in ("no digits", "strangers"))
    is_letter = np.repeat([1, 0], [len(letters), len(digits)])
    area = roc_auc_score(is_letter, np.concatenate([letters, digits]))
    false_digits = (letters <= np.quantile(digits, 0.95)).mean()
    return f"AUROC {area:.2%}, FPR at 95 % {false_digits:.2%}"


def save(model: torch.nn.Module, held_out: dict[str, Images], out: Path) -> None:
    "Write the network with its calibration on held-out digits and its accuracy on MNIST's test."
    known = held_out["MNIST"] + held_out["strangers"]
    calibration = calibrate(logits_of(model, known), known.labels.numpy(), no_digit=True)
    test = mnist_images("testing")
    right = int((logits_of(model, test).argmax(1) == test.labels.numpy()).sum())
    n = len(test.labels)
    facts = {"run": "reader", "accuracy": right / n,
             "accuracy_interval_95": list(accuracy_interval(right, n)),
             "validation_images": n, "validated_on": "test images",
             "parameters": sum(p.numel() for p in model.parameters()),
             "calibration": calibration}
    print(facts)
    save_predictor(Predictor(
        network=TorchNetwork(model), vocab=list("0123456789"), no_digit=True,
        temperature=calibration["temperature"], threshold=calibration["threshold"],
        arch="digitnet_deep", facts=facts), out)


if __name__ == "__main__":
    main()
