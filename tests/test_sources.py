import hashlib
import http.server
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from fastai.data.external import URLs, fastai_cfg, fastai_path

from digitfast.data import sources
from digitfast.data.folders import class_counts
from digitfast.data.sources import (
    MNIST_COUNTS,
    PACKED_MNIST,
    PACKED_MNIST_SHA256,
    digits_path,
)
from digitfast.errors import BadData, DataNotFound

UNPACK = [sys.executable, "-W", "ignore", "-c",
          "from digitfast import digits_path; print(digits_path())"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty fastai data folder."
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "home"))
    fastai_cfg.cache_clear()
    yield tmp_path / "home"
    fastai_cfg.cache_clear()


@pytest.fixture
def archive(digits, tmp_path) -> Path:
    return Path(shutil.make_archive(str(tmp_path / "mine"), "gztar", digits.parent, digits.name))


@pytest.fixture
def server(archive):
    "The archive's folder on a local HTTP server, and the paths requested from it."
    class Handler(http.server.SimpleHTTPRequestHandler):
        asked = []

        def do_GET(self):
            Handler.asked.append(self.path)
            super().do_GET()

        def log_message(self, *args): pass

    handler = partial(Handler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", Handler.asked
        httpd.shutdown()


def test_mnist_is_all_there(mnist):
    assert mnist == fastai_path("data") / "mnist_png"
    for split, counts in MNIST_COUNTS.items():
        assert list(class_counts(mnist / split).values()) == counts
    assert sum(MNIST_COUNTS["training"]) == 60_000
    assert sum(MNIST_COUNTS["testing"]) == 10_000
    start = time.perf_counter()
    assert digits_path() == mnist
    assert time.perf_counter() - start < 3  # nothing is unpacked again
    hidden = [f.name for f in mnist.parent.iterdir() if f.name.startswith(".")]
    assert hidden == [".digitfast.lock"]  # no remains


def test_mnist_has_the_published_pixels(mnist):
    import numpy as np
    from PIL import Image
    files = sorted((mnist / "training").glob("*/*.png"))
    sample = np.stack([np.asarray(Image.open(f)) for f in files[::20]])
    assert sample.dtype == np.uint8 and sample.shape[1:] == (28, 28)
    assert sample.mean() / 255 == pytest.approx(0.1307, abs=0.002)
    assert sample.std() / 255 == pytest.approx(0.3081, abs=0.002)
    assert (mnist / "training/5/0.png").exists()  # a name is the place in the IDX file
    assert (mnist / "testing/7/0.png").exists()


def test_packed_archive_is_checked_before_it_is_unpacked(home, tmp_path, monkeypatch):
    assert hashlib.sha256(PACKED_MNIST.read_bytes()).hexdigest() == PACKED_MNIST_SHA256
    assert PACKED_MNIST_SHA256 in (PACKED_MNIST.parent / "README.md").read_text()
    damaged = tmp_path / "mnist_png.tar.xz"
    damaged.write_bytes(PACKED_MNIST.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(sources, "PACKED_MNIST", damaged)
    with pytest.raises(BadData, match="damaged"):
        digits_path()
    assert not (home / "data/mnist_png").exists()


def test_incomplete_mnist_is_set_aside_not_taken(mnist, home):
    data = home / "data"
    shutil.copytree(mnist / "testing", data / "mnist_png/testing")  # as left by a killed unpacking
    (data / "mnist_png/testing/0/mine.txt").write_text("a user's")
    with pytest.warns(UserWarning, match="incomplete"):
        assert digits_path() == data / "mnist_png"
    assert sources._is_whole_mnist(data / "mnist_png")
    assert (data / "mnist_png.incomplete/testing/0/mine.txt").read_text() == "a user's"
    (data / "mnist_png/testing/0/10.png").write_bytes(b"")
    assert not sources._is_whole_mnist(data / "mnist_png")


def test_killed_and_parallel_first_runs(home):
    data = home / "data"
    environment = {**os.environ, "FASTAI_HOME": str(home)}
    killed = subprocess.Popen(UNPACK, env=environment, stdout=subprocess.DEVNULL)
    staging = data / ".mnist_png.unpacking"
    # half-way through the training images
    while not list(staging.glob("*/mnist_png/mnist_png/training/3/*.png")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (data / "mnist_png").exists() and staging.exists()
    both = [subprocess.Popen(UNPACK, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(data / "mnist_png")] * 2
    assert sources._is_whole_mnist(data / "mnist_png")
    assert not staging.exists()


def test_download_from_a_server(home, server, digits):
    url, asked = server
    path = digits_path(f"{url}/mine.tar.gz")
    assert class_counts(path / "training") == class_counts(digits / "training")
    assert (path / "testing/7/30.png").read_bytes() == (digits / "testing/7/30.png").read_bytes()
    assert digits_path(f"{url}/mine.tar.gz") == path
    assert asked == ["/mine.tar.gz"] * 2  # reached, fetched
    assert path.parent == home / "data"
    assert path.name.startswith("mine-")


def test_file_url_and_changed_file(home, archive, copy_of_digits):
    first = digits_path(archive.as_uri())
    (copy_of_digits / "training/0/0.png").unlink()
    base = str(archive).removesuffix(".tar.gz")
    shutil.make_archive(base, "gztar", copy_of_digits.parent, copy_of_digits.name)
    second = digits_path(archive.as_uri())
    assert first != second
    assert not (second / "training/0/0.png").exists()


def test_fastai_names(home, server, monkeypatch):
    url, asked = server
    monkeypatch.setattr(URLs, "MNIST_SAMPLE", f"{url}/mine.tar.gz")
    assert digits_path("MNIST_SAMPLE") == home / "data/mine"
    (home / "data/mnist_tiny").mkdir()  # unpacked by fastai before
    assert digits_path("MNIST_TINY") == home / "data/mnist_tiny"


def test_no_network_is_one_line_within_seconds(home, monkeypatch):
    start = time.perf_counter()
    with pytest.raises(DataNotFound, match="use 'mnist'"):
        digits_path("http://127.0.0.1:9/digits.tgz")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(sources, "MAX_SILENCE", 0.5)
        with pytest.raises(DataNotFound, match="could not be fetched"):
            digits_path(f"http://127.0.0.1:{silent.getsockname()[1]}/digits.tgz")
    assert time.perf_counter() - start < 5
    assert not [f for f in (home / "data").iterdir() if f.is_dir()]


def test_bad_sources(home, tmp_path, digits):
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(b"no archive")
    with pytest.raises(BadData, match="cannot be unpacked"):
        digits_path(broken.as_uri())
    with pytest.raises(BadData, match="cannot be unpacked"):
        digits_path(broken)
    (tmp_path / "text.txt").write_text("no archive")
    with pytest.raises(DataNotFound, match="is not an archive. Allowed: mnist"):
        digits_path(tmp_path / "text.txt")
    with pytest.raises(DataNotFound, match="no such file"):
        digits_path((tmp_path / "absent.tgz").as_uri())
    for name in ("minst", "MNIST_SAMPEL", "LOCAL_PATH"):
        with pytest.raises(DataNotFound, match="Allowed: mnist"):
            digits_path(name)
    assert digits_path(digits) == digits
    assert digits_path(str(digits)) == digits


def test_config_of_fastai_is_left_alone(home, archive):
    before = fastai_path("data"), fastai_path("archive")
    digits_path(archive.as_uri())
    assert (fastai_path("data"), fastai_path("archive")) == before


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    info.size = 5 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize("make", [
    lambda victim: [member(f"{victim}/absolute")],
    lambda victim: [member("../" * 20 + f"{victim}/above".lstrip("/"))],
    lambda victim: [member("x/out", tarfile.SYMTYPE, str(victim)), member("x/out/through")],
    lambda victim: [member("x/up", tarfile.SYMTYPE, "../" * 20 + str(victim).lstrip("/")),
                    member("x/up/through")],
    lambda victim: [member("x/hard", tarfile.LNKTYPE, f"{victim}/there"), member("x/hard")],
    lambda victim: [member("x/device", tarfile.CHRTYPE)],
    lambda victim: [member("x/pipe", tarfile.FIFOTYPE)]],
    ids=["absolute", "above", "symlink", "symlink above", "hard link", "device", "pipe"])
def test_no_member_of_a_tar_is_written_outside(home, tmp_path, make):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "there").write_text("mine")
    members = make(victim)
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        for info in [member("x/testing/0/a.png"), *members]:
            tar.addfile(info, io.BytesIO(b"owned") if info.size else None)
    if members[0].name.startswith("/"):  # is unpacked inside, without the slash
        path = digits_path((tmp_path / "x.tgz").as_uri())
        assert not any(f.is_symlink() for f in path.rglob("*"))
    else:
        with pytest.raises(BadData, match="x.tgz cannot be unpacked"):
            digits_path((tmp_path / "x.tgz").as_uri())
        assert not [f for f in (home / "data").iterdir() if not f.name.startswith(".digitfast")]
    assert [(f.name, f.read_text()) for f in victim.iterdir()] == [("there", "mine")]
    assert tarfile.TarFile.extraction_filter is None


@pytest.mark.parametrize("name", ["/{victim}/absolute", "{up}{victim}/above"])
def test_no_member_of_a_zip_is_written_outside(home, tmp_path, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("x/testing/0/a.png", b"a")
        file.writestr(name.format(victim=str(victim).lstrip("/"), up="../" * 20), b"owned")
    digits_path((tmp_path / "x.zip").as_uri())
    assert not list(victim.iterdir())


def test_what_only_a_file_names_is_not_fetched(home, server):
    url, asked = server
    for source in (f"{url}/mine.tar.gz", "MNIST_TINY"):
        with pytest.raises(DataNotFound, match=f"a file names '{source}'.*digitfast data {source}"):
            digits_path(source, fetch=False)
    assert not asked
    path = digits_path(f"{url}/mine.tar.gz")
    assert digits_path(f"{url}/mine.tar.gz", fetch=False) == path  # it is there now
