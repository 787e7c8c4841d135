import bz2
import gzip
import io
import threading
import zipfile
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from test_array_files import LABELS, PIXELS, idx_bytes
from torch.utils.data import Subset, TensorDataset
from torchvision import datasets as torchvision_sets
from torchvision.transforms import ToTensor

from digitfast import digit_dls, digitnet_learner
from digitfast.data.datasets import dataset_images, named_set
from digitfast.errors import BadData, DataNotFound
from digitfast.registry import TORCHVISION_SETS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    "The address of a folder served on this machine, and the folder."
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "An empty data folder of fastai."
    monkeypatch.setattr("digitfast.data.datasets.fastai_path",
                        lambda kind: tmp_path / "home" / kind)


def serve_idx(server, names, labels=LABELS):
    "Serve the four files of a data set in MNIST's format, and return their names and checksums."
    _, folder = server
    found = []
    for name in names:
        content = gzip.compress(idx_bytes(PIXELS if "images" in name else labels))
        (folder / name).write_bytes(content)
        found.append((name, md5(content).hexdigest()))
    return found


MNIST_FILES = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
               "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("name, kind, vocab", [
    ("fashion", "FashionMNIST", ["Pullover", "Coat"]), ("kmnist", "KMNIST", ["su", "na"])])
def test_sets_in_mnists_format(server, monkeypatch, name, kind, vocab):
    build = getattr(torchvision_sets, kind)
    monkeypatch.setattr(build, "mirrors", [server[0]])
    monkeypatch.setattr(build, "resources", serve_idx(server, MNIST_FILES))
    found = named_set(name)
    assert found.vocab == vocab
    assert np.array_equal(found.pixels, np.concatenate([PIXELS, PIXELS]))
    assert (found.n_training, found.validated_on) == (6, "test images")


def test_a_set_that_is_there_is_not_fetched_again(server, monkeypatch):
    build = torchvision_sets.KMNIST
    monkeypatch.setattr(build, "mirrors", [server[0]])
    monkeypatch.setattr(build, "resources", serve_idx(server, MNIST_FILES))
    first = named_set("kmnist")
    monkeypatch.setattr(build, "mirrors", [])
    assert np.array_equal(named_set("kmnist", fetch=False).pixels, first.pixels)


def test_qmnist(server, monkeypatch):
    address, folder = server
    labels = np.zeros((6, 8), np.int32)
    labels[:, 0] = LABELS
    content = {"images-idx3-ubyte": idx_bytes(PIXELS),
               "labels-idx2-int": b"\0\0\x0c\2\0\0\0\6\0\0\0\x08" + labels.astype(">i4").tobytes()}
    resources = {}
    for split in ("train", "test"):
        resources[split] = []
        for name, plain in content.items():
            packed = gzip.compress(plain)
            (folder / f"qmnist-{split}-{name}.gz").write_bytes(packed)
            resources[split].append((f"{address}qmnist-{split}-{name}.gz", md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision_sets.QMNIST, "resources", resources)
    found = named_set("qmnist")
    assert [found.vocab[i] for i in found.labels[:6]] == list(map(str, LABELS))


@pytest.fixture
def emnist(server, monkeypatch):
    "Serve letters in EMNIST's format: 26 classes, on their side."
    address, folder = server
    letters = np.tile(np.arange(1, 27, dtype=np.uint8), 4)
    pixels = np.tile(PIXELS[:2].swapaxes(1, 2), (52, 1, 1))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split in ("train", "test"):
            for kind, array in (("images-idx3", pixels), ("labels-idx1", letters)):
                archive.writestr(f"gzip/emnist-letters-{split}-{kind}-ubyte.gz",
                                 gzip.compress(idx_bytes(array)))
    (folder / "gzip.zip").write_bytes(packed.getvalue())
    monkeypatch.setattr(torchvision_sets.EMNIST, "url", f"{address}gzip.zip")
    monkeypatch.setattr(torchvision_sets.EMNIST, "md5", md5(packed.getvalue()).hexdigest())


def test_emnist_is_upright_and_has_no_class_without_images(emnist):
    found = named_set("emnist-letters")
    assert found.vocab == [chr(ord("a") + i) for i in range(26)]
    assert np.array_equal(found.pixels[:2], PIXELS[:2])


def test_a_learner_of_letters(emnist, tmp_path):
    dls = digit_dls("emnist-letters", bs=32)
    learn = digitnet_learner(dls)
    assert dls.c == 26
    assert len(dls.checksum()) == 64
    assert learn.predict(PIXELS[0])[0] in dls.vocab


def test_usps(server, monkeypatch):
    address, folder = server
    splits = {}
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        rows = [" ".join([str(label + 1), *(f"{i + 1}:{value}" for i, value in enumerate(row))])
                for label, row in zip(LABELS, np.linspace(-1, 1, 6 * 256).reshape(6, 256),
                                      strict=True)]
        packed = bz2.compress("\n".join(rows).encode())
        (folder / name).write_bytes(packed)
        splits[split] = [f"{address}{name}", name, md5(packed).hexdigest()]
    monkeypatch.setattr(torchvision_sets.USPS, "split_list", splits)
    found = named_set("usps")
    assert found.pixels.shape == (12, 16, 16)
    assert found.vocab == ["2", "4"]


def test_svhn_is_read_as_grey(server, monkeypatch):
    address, folder = server
    splits = {}
    colour = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 6), np.uint8)
    for split in ("train", "test"):
        name = f"{split}_32x32.mat"
        savemat(folder / name, {"X": colour, "y": np.array([[10], [1], [2], [10], [1], [2]])})
        content = (folder / name).read_bytes()
        splits[split] = [f"{address}{name}", name, md5(content).hexdigest()]
    monkeypatch.setattr(torchvision_sets.SVHN, "split_list", splits)
    with pytest.warns(UserWarning, match="svhn are in colour, and are read as grey"):
        found = named_set("svhn")
    assert found.pixels.shape == (12, 32, 32)
    assert found.vocab == ["0", "1", "2"]


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_without_a_network(name, monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(DataNotFound, match=f"{name} is not on this machine .*put a copy") as error:
        named_set(name)
    assert str(tmp_path / "home/data/torchvision" / name) in str(error.value)


def test_a_damaged_download(server, monkeypatch):
    files = serve_idx(server, MNIST_FILES)
    monkeypatch.setattr(torchvision_sets.KMNIST, "mirrors", [server[0]])
    monkeypatch.setattr(torchvision_sets.KMNIST, "resources", files)
    (server[1] / MNIST_FILES[0]).write_bytes(b"other")
    with pytest.raises(DataNotFound, match="kmnist .*could not be fetched"):
        named_set("kmnist")


def test_damaged_files(tmp_path):
    raw = tmp_path / "home/data/torchvision/kmnist/KMNIST/raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        (raw / name[:-3]).write_bytes(b"other")
    with pytest.raises(BadData, match="kmnist is damaged .*remove it"):
        named_set("kmnist")


def test_what_only_a_file_names_is_not_fetched():
    with pytest.raises(DataNotFound, match="Fetch it first: digitfast data svhn"):
        named_set("svhn", fetch=False)


def test_datasets_of_torchvision(tmp_path):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        (raw / name[:-3]).write_bytes(idx_bytes(PIXELS if "images" in name else LABELS))
    parts = [torchvision_sets.MNIST(tmp_path, train=train) for train in (True, False)]
    found = dataset_images(*parts)
    assert np.array_equal(found.pixels, np.concatenate([PIXELS, PIXELS]))
    assert found.vocab == ["2", "4"]
    some = dataset_images(Subset(parts[0], [1, 3]))
    assert np.array_equal(some.pixels, PIXELS[[1, 3]])
    with pytest.warns(UserWarning, match="transforms of the data set are left out"):
        whole = dataset_images(torchvision_sets.MNIST(tmp_path, transform=ToTensor()))
    assert np.array_equal(whole.pixels, PIXELS)


def test_a_dataset_of_tensors():
    pairs = TensorDataset(torch.from_numpy(PIXELS) / 255, torch.from_numpy(LABELS))
    assert np.array_equal(dataset_images(pairs).pixels, PIXELS)


def test_an_image_folder_of_torchvision(digits):
    found = dataset_images(torchvision_sets.ImageFolder(digits / "testing"))
    assert found.vocab == list("0123456789")
    assert len(found) == 120


def test_pairs_that_are_none():
    with pytest.raises(BadData, match="must give pairs of an image and a class index"):
        dataset_images(TensorDataset(torch.from_numpy(PIXELS)))


@pytest.fixture
def hugging_face():
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn
    return Dataset.from_dict(
        {"image": [Image.fromarray(image) for image in PIXELS], "label": [1, 0] * 3},
        Features({"image": ImageColumn(), "label": ClassLabel(names=["two", "four"])}))


def test_datasets_of_hugging_face(hugging_face):
    from datasets import DatasetDict
    alone = dataset_images(hugging_face)
    assert np.array_equal(alone.pixels, PIXELS)
    assert (alone.vocab, alone.labels.tolist()) == (["two", "four"], [1, 0] * 3)
    dls = digit_dls(DatasetDict(train=hugging_face, test=hugging_face), bs=2)
    assert (len(dls.train_ds), len(dls.valid_ds), dls.validated_on) == (6, 6, "test images")


def test_columns_that_are_missing(hugging_face):
    with pytest.raises(BadData, match="has the columns image; it must have"):
        dataset_images(hugging_face.remove_columns("label"))
