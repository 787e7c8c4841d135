"""Where digits come from: a name, an archive or a folder becomes a folder of images on the disk.

Every archive is fetched and unpacked by fastai's `untar_data`, into a folder of this module's own beside the final
place, and is moved there in one step once it is whole. So a killed run leaves nothing that is later taken for
complete, and of two runs at once one unpacks while the other waits.
"""
import contextlib
import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from lzma import LZMAError
from pathlib import Path
from urllib.parse import unquote, urlparse

from fastai.data.external import URLs, fastai_path, untar_data
from fastcore.net import urlopen
from filelock import FileLock

from digitfast.errors import BadData, DataNotFound
from digitfast.files import PACKED

PACKED_MNIST = PACKED / "mnist_png.tar.xz"
PACKED_MNIST_SHA256 = "dcf9db56dd64bfe48c12b271085f52d9e50758b4c80bea6d71cee5075c666e1b"
MNIST_FOLDER = "mnist_png"  # fastai's own name for it
MNIST_COUNTS = {  # images of each digit, 0 to 9
    "training": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "testing": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
SILENCE = 10  # seconds without an answer after which a server counts as out of reach


def digits_path(
    source: str | Path = "mnist",  # "mnist", a fastai name (`MNIST_SAMPLE`), a URL of an archive, or a folder
    fetch: bool = True,  # whether to fetch what is not on the disk; False for a source that only a file names
) -> Path:  # the folder that holds the splits, for example `training/` and `testing/`
    """A folder of digit images, fetched and unpacked first where need be.

    "mnist" takes `mnist_png` in fastai's data folder if all 70,000 images are in it, and otherwise unpacks the copy
    that comes with digitfast; it needs no network. URLs may start with http://, https:// or file://.

    Raises: `DataNotFound` if there is no such source or it cannot be fetched, `BadData` if its archive is damaged or
    would write outside its folder.
    """
    name = str(source)
    if name == "mnist":
        return _unpack_once(_packed_mnist, MNIST_FOLDER, _is_whole_mnist)
    url = getattr(URLs, name, None) if name.isupper() else None
    if isinstance(url, str) and url.startswith("http"):
        folder = _stem(url).removesuffix(".tar")
        return _unpack_once(lambda: _asked_for(url, name, fetch), folder,
                            _is_whole_mnist if folder == MNIST_FOLDER else Path.is_dir)
    if "://" in name:
        try:
            urlparse(name)
        except ValueError as e:
            raise DataNotFound(f"{name!r} is no URL ({e})") from e
        return _unpack_once(lambda: _asked_for(name, name, fetch), _folder_of_url(name), Path.is_dir)
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return path
    what = "is a file; an archive is named as a URL, " + path.as_uri() if path.exists() else "is no folder"
    raise DataNotFound(
        f"{name!r} {what}. Allowed: 'mnist', a fastai name such as MNIST_SAMPLE or MNIST_TINY, "
        "an archive's URL (http://, https://, file://), or a folder")


def _asked_for(url: str, name: str, fetch: bool) -> str:
    "`url`, if a person has asked for it. Raises: `DataNotFound`."
    if not fetch:
        raise DataNotFound(f"a file names {name!r} as the source of its digits, and what a file names is not fetched. "
                           f"If you trust it, fetch it first: digitfast data {name}")
    return url


def _is_whole_mnist(path: Path) -> bool:
    "Whether `path` holds MNIST's number of files in every class of both splits, and none of them is empty."
    for split, counts in MNIST_COUNTS.items():
        for digit, count in enumerate(counts):
            folder = path / split / str(digit)
            try:
                sizes = [f.stat().st_size for f in folder.iterdir() if f.suffix == ".png"]
            except OSError:
                return False
            if len(sizes) != count or 0 in sizes:
                return False
    return True


def _packed_mnist() -> str:
    "The URL of the archive that digitfast carries, once its checksum has been compared."
    try:
        found = hashlib.sha256(PACKED_MNIST.read_bytes()).hexdigest()
    except OSError as e:
        raise DataNotFound(f"digitfast's own copy of MNIST cannot be read ({e}); install digitfast again") from e
    if found != PACKED_MNIST_SHA256:
        raise BadData(f"{PACKED_MNIST} is damaged: its SHA-256 is {found}, it should be {PACKED_MNIST_SHA256}; "
                      "install digitfast again")
    return PACKED_MNIST.as_uri()


def _stem(url: str) -> str:
    return Path(unquote(urlparse(url).path)).stem


def _folder_of_url(url: str) -> str:
    "A folder name for what `url` holds: two archives of one file name get two folders, and so does a changed file."
    key = url
    if url.startswith("file://"):
        file = Path(unquote(urlparse(url).path))
        if not file.is_file():
            raise DataNotFound(f"{url}: there is no such file")
        key += f"{file.stat().st_size} {file.stat().st_mtime_ns}"
    return f"{_stem(url).removesuffix('.tar')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _unpack_once(find_url: Callable[[], str], folder: str, is_whole: Callable[[Path], bool]) -> Path:
    "The whole `folder` in fastai's data folder, unpacked first from the archive at `find_url()` if it is not there."
    data = fastai_path("data")
    final, staging = data / folder, data / f".{folder}.unpacking"
    if is_whole(final):
        return final
    try:
        data.mkdir(parents=True, exist_ok=True)
        with FileLock(data / ".digitfast.lock"):
            if is_whole(final):  # another process was faster
                return final
            url = find_url()
            shutil.rmtree(staging, ignore_errors=True)  # a killed run's
            try:
                unpacked = _untar(url, staging)
                if not is_whole(unpacked):
                    raise BadData(f"{url} does not hold all the images it should; fetch it again")
                if final.exists():
                    _set_aside(final)
                unpacked.rename(final)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except PermissionError as e:
        raise DataNotFound(f"{data} cannot be written to ({e}); set FASTAI_HOME to a folder that can") from e
    return final


def _untar(url: str, staging: Path) -> Path:
    "What `untar_data` makes of `url`, below `staging`."
    try:
        if url.startswith("http"):
            urlopen(url, timeout=SILENCE).close()  # untar_data itself would wait for ever for a silent server
        with _quiet(url), _scratch(staging), _only_inside():
            return untar_data(url, base=staging)  # `data=` would be remembered by fastai for later calls
    except (shutil.ReadError, tarfile.TarError, EOFError, zlib.error, LZMAError) as e:
        raise BadData(f"{url} cannot be unpacked ({e}); allowed are .tgz, .tar.gz, .tar.xz, .tar and .zip") from e
    except (OSError, HTTPException, ValueError) as e:  # ValueError: what is no URL
        advice = (". Without a network, use 'mnist', which comes with digitfast, or the path of a folder"
                  if url.startswith("http") else f"; {staging.parent} must be writable and have room for it")
        raise DataNotFound(f"{url} could not be fetched ({e}){advice}") from e


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    "Have temporary files made in `folder`: on one file system a move is a rename, and one clean-up takes all."
    folder.mkdir(parents=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _only_inside() -> Iterator[None]:
    "Have no member of a tar written outside its folder, nor a link or device there; Python 3.14 does so by itself."
    usual = vars(tarfile.TarFile)["extraction_filter"]
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = usual


@contextlib.contextmanager
def _quiet(url: str) -> Iterator[None]:
    "Keep fastai's download bar for downloads that somebody watches at a terminal."
    if url.startswith("http") and sys.stdout.isatty():
        yield
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def _set_aside(path: Path) -> None:
    "Rename a folder that is not whole, so that nothing in it is lost."
    aside = path.with_name(f"{path.name}.incomplete")
    n = 1
    while aside.exists():
        n += 1
        aside = path.with_name(f"{path.name}.incomplete-{n}")
    path.rename(aside)
    warnings.warn(f"{path} was not complete and is now {aside}", stacklevel=4)
