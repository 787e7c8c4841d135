"""What `digitfast bench` measures: digitfast, its alternatives, and their bare arithmetic.

Each function trains one network on the digits in a folder, as its peer does, and returns the
`Timing`. `comparisons` runs each in a separate process, `python -m digitfast.bench.peers NAME
FOLDER SEED`, so none speeds up or slows down the next. All of it is our own code, written from
the descriptions that the docstrings name.
"""
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(kw_only=True)
class Timing:
    "The seconds of one measurement, and the accuracy."
    setup: float  # after imports, up to the first step: list folders, read images, make the network
    training: float  # epochs, each with validation if the peer validates
    accuracy: float | None = None  # on the test images, 0..1


def train_ours(arch: str, folder: Path, seed: int, **settings) -> Timing:
    "Train with digitfast's `train_run`, with its defaults and `settings`."
    from digitfast.runs.run import train_run
    with TemporaryDirectory() as runs:
        run = train_run(str(folder), arch, seed=seed, runs=runs, **settings)
    seconds = run.summary["seconds"]
    return Timing(setup=seconds["preparation"], training=seconds["training"],
                  accuracy=run.summary["accuracy"])


def train_bare(
    arch: str, folder: Path, seed: int,
    bs: int | None = None,  # None: the default of `digit_dls`
    epochs: int = 1,
) -> Timing:
    """Measure the compute floor: only the network, with the same precision, batches and validation.

    Batches are views of shuffled float tensors in memory; the optimiser is torch's own."""
    import torch
    import torch.nn.functional as F
    from fastai.torch_core import set_seed

    from digitfast.data.loaders import digit_dls
    from digitfast.training.lean import channels_last
    from digitfast.training.learners import digit_learner
    from digitfast.training.precision import choose_precision, training_arithmetic
    from digitfast.training.train import keep_freed_memory
    start = time.perf_counter()
    set_seed(seed)
    keep_freed_memory()
    dls = digit_dls(folder, **({"bs": bs} if bs else {}))
    device = dls.device
    model = digit_learner(dls, arch).model.to(device)
    precision = choose_precision("auto", model, device)

    def shuffled(dl):
        order = torch.randperm(dl.n, device=device)
        return channels_last(dl.pixels[order].unsqueeze(1).float().div_(255)), dl.labels[order]

    (x, y), (valid_x, valid_y) = map(shuffled, dls.loaders)
    loss_func = F.nll_loss if arch == "article" else F.cross_entropy
    if arch in ("simple", "article"):
        opt = torch.optim.SGD(model.parameters(), lr=0.003)
    else:
        opt = torch.optim.AdamW(model.parameters(), lr=0.003, fused=True)
    ready = time.perf_counter()
    with training_arithmetic(model, device, precision):
        for _ in range(epochs):
            model.train()
            batches = zip(x.split(dls.train.bs), y.split(dls.train.bs), strict=True)
            for xb, yb in islice(batches, len(dls.train)):
                loss_func(model(xb), yb).backward()
                opt.step()
                opt.zero_grad()
            model.eval()
            batches = zip(valid_x.split(dls.valid.bs), valid_y.split(dls.valid.bs), strict=True)
            with torch.no_grad():
                right = sum((model(xb).argmax(1) == yb).sum().item() for xb, yb in batches)
    return Timing(setup=ready - start, training=time.perf_counter() - ready,
                  accuracy=right / len(valid_y))


def article_resnet18(folder: Path, seed: int) -> Timing:
    "Run the article's last lines unchanged: one epoch of resnet18 with fastai's defaults."
    import torch.nn.functional as F
    from fastai.vision.all import ImageDataLoaders, accuracy, resnet18, set_seed, vision_learner
    start = time.perf_counter()
    set_seed(seed)
    dls = ImageDataLoaders.from_folder(folder, train="training", valid="testing")
    learn = vision_learner(dls, resnet18, pretrained=False, loss_func=F.cross_entropy,
                           metrics=accuracy)
    ready = time.perf_counter()
    with learn.no_bar():
        learn.fit_one_cycle(1, 0.1)
    return Timing(setup=ready - start, training=time.perf_counter() - ready,
                  accuracy=learn.recorder.values[-1][2])


def article_simple(folder: Path, seed: int, epochs: int) -> Timing:
    """Train the article's simple net with `BasicOptim` in its loop, over fastai's `DataLoader`.

    The article trains 500 epochs; each takes as long as the next. On a GPU the loader moves each
    batch there, as fastai's do.
    """
    import torch
    import torch.nn.functional as F
    from fastai.data.load import DataLoader
    from fastai.torch_core import default_device
    from torch import nn
    start = time.perf_counter()
    torch.manual_seed(seed)
    device = default_device()
    train_dl, valid_dl = (DataLoader(list(zip(*split, strict=True)), batch_size=256, device=device)
                          for split in _as_vectors(folder))
    net = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 30), nn.ReLU(),
                        nn.Linear(30, 10)).to(device)

    class BasicOptim:
        def __init__(self, params, lr): self.params, self.lr = list(params), lr

        def step(self):
            for p in self.params:
                p.data -= p.grad.data * self.lr

        def zero_grad(self):
            for p in self.params:
                p.grad = None

    opt = BasicOptim(net.parameters(), 0.003)
    ready = time.perf_counter()
    for _ in range(epochs):
        for xb, yb in train_dl:
            F.cross_entropy(net(xb), yb).backward()
            opt.step()
            opt.zero_grad()
        accuracies = [(net(xb).argmax(dim=1) == yb).float().mean() for xb, yb in valid_dl]
    return Timing(setup=ready - start, training=time.perf_counter() - ready,
                  accuracy=torch.stack(accuracies).mean().item())


def article_pytorch(folder: Path, seed: int) -> Timing:
    """Train the article's first network in its PyTorch loop, without validation.

    It reads torchvision's MNIST with `ToTensor`, through a `DataLoader`.
    """
    import torch
    from fastai.torch_core import default_device
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor
    with TemporaryDirectory() as root:
        _write_idx(folder, Path(root))
        start = time.perf_counter()
        torch.manual_seed(seed)
        train_dl = DataLoader(MNIST(root, train=True, transform=ToTensor()),
                              batch_size=128, shuffle=True)
        device = default_device()
        net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                            nn.Linear(64, 10), nn.LogSoftmax(dim=1)).to(device)
        opt = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.8)
        loss_func = nn.NLLLoss()
        ready = time.perf_counter()
        total = 0.0
        for images, labels in train_dl:
            opt.zero_grad()
            loss = loss_func(net(images.view(images.shape[0], -1).to(device)), labels.to(device))
            loss.backward()
            opt.step()
            total += loss.item()
        return Timing(setup=ready - start, training=time.perf_counter() - ready)


def train_mnist_fast(folder: Path, seed: int) -> Timing:
    """Train a network of train_mnist_fast's design for one epoch, in PyTorch, on tensors in memory.

    24 filters of 5×5, 32 of 3×3, each with pooling, 256 units; Adam, one cycle up to 0.01, batches
    of 256.
    """
    import torch
    import torch.nn.functional as F
    from fastai.torch_core import default_device
    from torch import nn
    start = time.perf_counter()
    torch.manual_seed(seed)
    device = default_device()
    (x, y), (valid_x, valid_y) = ((pixels.view(-1, 1, 28, 28).to(device), labels.to(device))
                                  for pixels, labels in _as_vectors(folder))
    mean, deviation = x.mean(), x.std()
    x = (x - mean) / deviation
    valid_x = (valid_x - mean) / deviation
    net = nn.Sequential(nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Conv2d(24, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
    opt = torch.optim.Adam(net.parameters())
    batches = torch.randperm(len(x), device=device).split(256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.01, total_steps=len(batches))
    ready = time.perf_counter()
    for batch in batches:
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        opt.step()
        schedule.step()
        opt.zero_grad()
    net.eval()
    with torch.no_grad():
        right = sum((net(xb).argmax(1) == yb).sum().item()
                    for xb, yb in zip(valid_x.split(1000), valid_y.split(1000), strict=True))
    return Timing(setup=ready - start, training=time.perf_counter() - ready,
                  accuracy=right / len(valid_y))


def _as_vectors(folder: Path) -> list[tuple]:
    "Return training and test images as `[n, 784]` floats in 0..1, each with their labels."
    from digitfast.data.loaders import digit_dls
    return [(dl.pixels.flatten(1).float().div_(255), dl.labels)
            for dl in digit_dls(folder, device="cpu").loaders]


def _write_idx(folder: Path, root: Path) -> None:
    "Write the digits in `folder` as IDX files, where torchvision's MNIST looks for them."
    from digitfast.data.loaders import digit_dls
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, dl in zip(("train", "t10k"), digit_dls(folder, device="cpu").loaders, strict=True):
        for kind, array in (("images-idx3", dl.pixels), ("labels-idx1", dl.labels)):
            sides = b"".join(n.to_bytes(4, "big") for n in array.shape)
            head = bytes([0, 0, 8, array.dim()]) + sides
            (raw / f"{split}-{kind}-ubyte").write_bytes(head + array.byte().numpy().tobytes())


def open_digits(folder: Path, seed: int) -> Timing:
    "Measure what happens once: unpack MNIST, then decode and cache it. Needs an empty data folder."
    from digitfast.data.loaders import digit_dls
    from digitfast.data.sources import digits_path
    start = time.perf_counter()
    path = digits_path(str(folder))
    unpacked = time.perf_counter()
    digit_dls(path)
    return Timing(setup=unpacked - start, training=time.perf_counter() - unpacked)


SIMPLE = {"bs": 256, "opt": "basic", "lr": 0.003, "schedule": "constant", "label_smoothing": 0.0,
          "epochs": 20}
ARTICLE = {"bs": 128, "opt": "sgd", "lr": 0.005, "mom": 0.8, "schedule": "constant",
           "label_smoothing": 0.0}
PEERS = {
    "ours-resnet18": partial(train_ours, "resnet18"),
    "bare-resnet18": partial(train_bare, "resnet18"),
    "article-resnet18": article_resnet18,
    "ours-simple": partial(train_ours, "simple", **SIMPLE),
    "bare-simple": partial(train_bare, "simple", bs=SIMPLE["bs"], epochs=SIMPLE["epochs"]),
    "article-simple": partial(article_simple, epochs=SIMPLE["epochs"]),
    "ours-article": partial(train_ours, "article", **ARTICLE),
    "bare-article": partial(train_bare, "article", bs=ARTICLE["bs"]),
    "article-pytorch": article_pytorch,
    "ours-digitnet": partial(train_ours, "digitnet"),
    "bare-digitnet": partial(train_bare, "digitnet"),
    "train-mnist-fast": train_mnist_fast,
    "open-digits": open_digits,
}


def main(name: str, folder: str, seed: str) -> None:
    "Measure one peer and print it as JSON, with this process's peak memory, without its workers'."
    import resource  # missing on Windows
    timing = PEERS[name](Path(folder) if folder != "mnist" else folder, int(seed))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({**asdict(timing), "peak_bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
