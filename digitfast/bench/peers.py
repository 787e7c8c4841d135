"""What `digitfast bench` measures: digitfast, what its users would run instead, and the bare arithmetic of both.

Each function here trains one network on the digits of a folder, as its peer does it, and gives its `Timing`.
`comparisons` runs each in a process of its own, `python -m digitfast.bench.peers NAME FOLDER SEED`, so that none speeds
up or slows down the next. All of it is our own code, written from the descriptions that are named.
"""
import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

EPOCHS_OF_SIMPLE = 20  # of the article's 500: an epoch takes as long as the next


@dataclass
class Timing:
    "Seconds of one measurement, and what came of it."
    setup: float  # from imported packages to the first step: folders listed, images read or opened, network made
    training: float  # epochs, with validation after each where the peer does that
    accuracy: float | None = None  # on the test images, 0..1


def ours(arch: str, folder: Path, seed: int, **settings) -> Timing:
    "digitfast's own way, `train_run`, with its defaults and `settings`."
    from digitfast.runs.run import train_run
    with TemporaryDirectory() as runs:
        run = train_run(str(folder), arch, seed=seed, runs=runs, **settings)
    seconds = run.summary["seconds"]
    return Timing(seconds["preparation"], seconds["training"], run.summary["accuracy"])


def bare(arch: str, folder: Path, seed: int, bs: int | None = None, epochs: int = 1) -> Timing:
    """The compute floor: the same network, precision, batch size and validation, and nothing else.

    Batches are views of shuffled float tensors that are in memory already; the optimiser is torch's own.
    """
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
    model, device = digit_learner(dls, arch).model.to(dls.device), dls.device
    precision = choose_precision("auto", model, device)
    (x, y), (valid_x, valid_y) = ((channels_last(dl.pixels[order].unsqueeze(1).float().div_(255)), dl.labels[order])
                                  for dl in dls.loaders for order in [torch.randperm(dl.n, device=device)])
    loss_func = F.nll_loss if arch == "article" else F.cross_entropy
    opt = (torch.optim.SGD(model.parameters(), lr=0.003) if arch in ("simple", "article")
           else torch.optim.AdamW(model.parameters(), lr=0.003, fused=True))
    ready = time.perf_counter()
    with training_arithmetic(model, device, precision):
        for _ in range(epochs):
            model.train()
            for xb, yb in islice(zip(x.split(dls.train.bs), y.split(dls.train.bs), strict=True), len(dls.train)):
                loss_func(model(xb), yb).backward()
                opt.step()
                opt.zero_grad()
            model.eval()
            with torch.no_grad():
                right = sum((model(xb).argmax(1) == yb).sum().item()
                            for xb, yb in zip(valid_x.split(dls.valid.bs), valid_y.split(dls.valid.bs), strict=True))
    return Timing(ready - start, time.perf_counter() - ready, right / len(valid_y))


def article_resnet18(folder: Path, seed: int) -> Timing:
    "The article's last lines, in fastai, as they stand: one epoch of resnet18 with fastai's defaults."
    import torch.nn.functional as F
    from fastai.vision.all import ImageDataLoaders, accuracy, resnet18, set_seed, vision_learner
    start = time.perf_counter()
    set_seed(seed)
    dls = ImageDataLoaders.from_folder(folder, train="training", valid="testing")
    learn = vision_learner(dls, resnet18, pretrained=False, loss_func=F.cross_entropy, metrics=accuracy)
    ready = time.perf_counter()
    with learn.no_bar():
        learn.fit_one_cycle(1, 0.1)
    return Timing(ready - start, time.perf_counter() - ready, learn.recorder.values[-1][2])


def article_simple(folder: Path, seed: int) -> Timing:
    """The article's simple net and `BasicOptim` in its own loop, over fastai's `DataLoader` of a list of pairs.

    On a GPU the loader moves each batch there, as fastai's do.
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
    net = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 30), nn.ReLU(), nn.Linear(30, 10)).to(device)

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
    for _ in range(EPOCHS_OF_SIMPLE):
        for xb, yb in train_dl:
            F.cross_entropy(net(xb), yb).backward()
            opt.step()
            opt.zero_grad()
        accuracies = [(net(xb).argmax(dim=1) == yb).float().mean() for xb, yb in valid_dl]
    return Timing(ready - start, time.perf_counter() - ready, torch.stack(accuracies).mean().item())


def article_pytorch(folder: Path, seed: int) -> Timing:
    "The article's first network in its PyTorch loop: torchvision's MNIST, `ToTensor`, `DataLoader`; no validation."
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
        train_dl = DataLoader(MNIST(root, train=True, transform=ToTensor()), batch_size=128, shuffle=True)
        device = default_device()
        net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
                            nn.LogSoftmax(dim=1)).to(device)
        opt, loss_func = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.8), nn.NLLLoss()
        ready = time.perf_counter()
        total = 0.0
        for images, labels in train_dl:
            opt.zero_grad()
            loss = loss_func(net(images.view(images.shape[0], -1).to(device)), labels.to(device))
            loss.backward()
            opt.step()
            total += loss.item()
        return Timing(ready - start, time.perf_counter() - ready)


def train_mnist_fast(folder: Path, seed: int) -> Timing:
    """A one-epoch network after train_mnist_fast's design, in plain PyTorch, on tensors in memory.

    24 filters of 5×5, 32 of 3×3, each with pooling, 256 units; Adam, one cycle up to 0.01, batches of 256.
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
    x, valid_x = (x - mean) / deviation, (valid_x - mean) / deviation
    net = nn.Sequential(nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
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
    return Timing(ready - start, time.perf_counter() - ready, right / len(valid_y))


def _as_vectors(folder: Path) -> list[tuple]:
    "Training and test images as `[n, 784]` floats in 0..1, and their labels: read by digitfast for those who have not."
    from digitfast.data.loaders import digit_dls
    return [(dl.pixels.flatten(1).float().div_(255), dl.labels) for dl in digit_dls(folder, device="cpu").loaders]


def _write_idx(folder: Path, root: Path) -> None:
    "The digits of `folder` in the original files' format, where torchvision's MNIST looks for them."
    from digitfast.data.loaders import digit_dls
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, dl in zip(("train", "t10k"), digit_dls(folder, device="cpu").loaders, strict=True):
        for kind, array in (("images-idx3", dl.pixels), ("labels-idx1", dl.labels)):
            head = bytes([0, 0, 8, array.dim()]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (raw / f"{split}-{kind}-ubyte").write_bytes(head + array.byte().numpy().tobytes())


def open_digits(folder: Path, seed: int) -> Timing:
    "What is done once: MNIST unpacked, its images decoded and kept. In an empty data folder of fastai."
    from digitfast.data.loaders import digit_dls
    from digitfast.data.sources import digits_path
    start = time.perf_counter()
    path = digits_path(str(folder))
    unpacked = time.perf_counter()
    digit_dls(path)
    return Timing(unpacked - start, time.perf_counter() - unpacked)


SIMPLE = {"bs": 256, "opt": "basic", "lr": 0.003, "schedule": "constant", "label_smoothing": 0.0,
          "epochs": EPOCHS_OF_SIMPLE}
ARTICLE = {"bs": 128, "opt": "sgd", "lr": 0.005, "mom": 0.8, "schedule": "constant", "label_smoothing": 0.0}
PEERS = {
    "ours-resnet18": lambda *args: ours("resnet18", *args),
    "bare-resnet18": lambda *args: bare("resnet18", *args),
    "article-resnet18": article_resnet18,
    "ours-simple": lambda *args: ours("simple", *args, **SIMPLE),
    "bare-simple": lambda *args: bare("simple", *args, bs=SIMPLE["bs"], epochs=EPOCHS_OF_SIMPLE),
    "article-simple": article_simple,
    "ours-article": lambda *args: ours("article", *args, **ARTICLE),
    "bare-article": lambda *args: bare("article", *args, bs=ARTICLE["bs"]),
    "article-pytorch": article_pytorch,
    "ours-digitnet": lambda *args: ours("digitnet", *args),
    "bare-digitnet": lambda *args: bare("digitnet", *args),
    "train-mnist-fast": train_mnist_fast,
    "open-digits": open_digits,
}


def main(name: str, folder: str, seed: str) -> None:
    "Measure one peer and print it as JSON, with the process's peak memory (without its worker processes)."
    import resource  # here, as Windows has none
    timing = PEERS[name](Path(folder) if folder != "mnist" else folder, int(seed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({**asdict(timing), "peak_bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
