"""Sources of digits: a name, an archive or a folder becomes a folder of images on disk.

fastai's `untar_data` fetches and unpacks every archive into a temporary folder next to the final
one, and one rename moves it there once it is whole. So a killed run leaves nothing that later looks
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
import zipfile
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
from digitfast.files import PACKED, expanded
from digitfast.registry import DATA_SETS

PACKED_MNIST = PACKED / "mnist_png.tar.xz"
PACKED_MNIST_SHA256 = "dcf9db56dd64bfe48c12b271085f52d9e50758b4c80bea6d71cee5075c666e1b"
MNIST_FOLDER = "mnist_png"  # fastai's name, in its data folder
MNIST_COUNTS = {  # images of each digit, 0 to 9
    "training": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "testing": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
MAX_SILENCE = 10  # seconds without an answer until a server counts as unreachable


def digits_path(
    source: str | Path = "mnist",  # "mnist", a fastai name (`MNIST_SAMPLE`), a URL, archive, folder
    fetch: bool = True,  # fetch what is not on disk; False for a source that only a file names
) -> Path:  # the folder that holds the splits, for example `training/` and `testing/`
    """Return a folder of digit images; fetch and unpack it first if necessary.

    "mnist" is `mnist_png` in fastai's data folder if all 70,000 images are in it; otherwise the
    bundled copy is unpacked, without a network. URLs are those of archives and start with
    http://, https:// or file://.

    Raises: `DataNotFound` if there is no such source or it cannot be fetched, `BadData` if its
    archive is damaged or would write outside its folder.
    """
    name = str(source)
    if name == "mnist":
        return _unpack_once(_packed_mnist, MNIST_FOLDER, _is_whole_mnist)
    url = getattr(URLs, name, None) if name.isupper() else None
    if isinstance(url, str) and url.startswith("http"):
        folder = _stem(url).removesuffix(".tar")
        return _unpack_once(lambda: _check_asked_for(url, name, fetch), folder,
                            _is_whole_mnist if folder == MNIST_FOLDER else Path.is_dir)
    if "://" in name:
        try:
            urlparse(name)
        except ValueError as e:
            raise DataNotFound(f"{name!r} is not a URL ({e})") from e
        return _unpack_once(lambda: _check_asked_for(name, name, fetch), _folder_of_url(name),
                            Path.is_dir)
    path = expanded(source).absolute()
    if path.is_dir():
        return path
    if path.is_file() and name.lower().endswith(ARCHIVES):
        url = path.as_uri()
        return _unpack_once(lambda: _check_asked_for(url, name, fetch), _folder_of_url(url),
                            Path.is_dir)
    reason = "is not an archive" if path.exists() else "does not exist"
    raise DataNotFound(
        f"{name!r} {reason}. Allowed: {', '.join(DATA_SETS)}, a fastai name such as MNIST_SAMPLE, "
        f"a folder, a .csv, an .npz, IDX files, an archive ({', '.join(ARCHIVES)}) or its URL "
        "(http://, https://, file://)")


def _check_asked_for(url: str, name: str, fetch: bool) -> str:
    "Return `url` if a person asked for it. Raises: `DataNotFound` if only a file names it."
    if not fetch:
        raise DataNotFound(
            f"a file names {name!r} as the source of its digits, and sources that only a file "
            f"names are not fetched. If you trust it, fetch it first: digitfast data {name}")
    return url


def _is_whole_mnist(path: Path) -> bool:
    "Return whether each class of both splits holds as many files as MNIST's, none of them empty."
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
    "Return the URL of the bundled archive. Raises: `BadData` if its checksum is wrong."
    try:
        found = hashlib.sha256(PACKED_MNIST.read_bytes()).hexdigest()
    except OSError as e:
        raise DataNotFound(f"the bundled copy of MNIST cannot be read ({e}); "
                           "reinstall digitfast") from e
    if found != PACKED_MNIST_SHA256:
        raise BadData(f"{PACKED_MNIST} is damaged: its SHA-256 is {found}, but must be "
                      f"{PACKED_MNIST_SHA256}; reinstall digitfast")
    return PACKED_MNIST.as_uri()


def _stem(url: str) -> str:
    return Path(unquote(urlparse(url).path)).stem


def _folder_of_url(url: str) -> str:
    "Return a folder name for an archive, another for one of the same name or a changed file."
    key = url
    if url.startswith("file://"):
        file = Path(unquote(urlparse(url).path))
        if not file.is_file():
            raise DataNotFound(f"no such file: {url}")
        key += f"{file.stat().st_size} {file.stat().st_mtime_ns}"
    return f"{_stem(url).removesuffix('.tar')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _unpack_once(
    find_url: Callable[[], str],  # returns the archive's URL
    folder: str,  # name in fastai's data folder
    is_whole: Callable[[Path], bool],  # whether the unpacked folder is complete
) -> Path:
    "Return the path of the whole `folder`; unpack the archive first if it is not there."
    data = fastai_path("data")
    final = data / folder
    staging = data / f".{folder}.unpacking"
    if is_whole(final):
        return final
    try:
        data.mkdir(parents=True, exist_ok=True)
        with FileLock(data / ".digitfast.lock"):
            if is_whole(final):  # another process was faster
                return final
            url = find_url()
            shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
            try:
                unpacked = _untar(url, staging)
                if not is_whole(unpacked):
                    raise BadData(f"{url} does not contain all of its images; fetch it again")
                if final.exists():
                    _set_aside(final)
                unpacked.rename(final)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except PermissionError as e:
        raise DataNotFound(f"{data} cannot be written to ({e}); "
                           "set FASTAI_HOME to a writable folder") from e
    return final


def _untar(url: str, staging: Path) -> Path:
    "Unpack the archive at `url` with `untar_data` below `staging`, and return the folder."
    try:
        if url.startswith("http"):
            # untar_data alone would wait forever for a silent server
            urlopen(url, timeout=MAX_SILENCE).close()
        with _hide_bar_unless_watched(url), _use_as_temporary(staging), _refuse_outside():
            unpacked = untar_data(url, base=staging)  # fastai would keep `data=` for later calls
            return _in_a_folder(unpacked) if unpacked.is_file() else unpacked
    except (shutil.ReadError, tarfile.TarError, EOFError, zlib.error, LZMAError) as e:
        raise BadData(f"{url} cannot be unpacked ({e}); "
                      "allowed are .tgz, .tar.gz, .tar.xz, .tar and .zip") from e
    except (OSError, HTTPException, ValueError) as e:  # ValueError: not a URL
        advice = (
            ". Without a network, use 'mnist', which is bundled with digitfast, or a folder's path"
            if url.startswith("http")
            else f"; {staging.parent} must be writable and have enough space")
        raise DataNotFound(f"{url} could not be fetched ({e}){advice}") from e


def _in_a_folder(file: Path) -> Path:
    "Put the only file of an archive, a table or an .npz that fastai has renamed, into a folder."
    folder = file.with_name(f"{file.name}-alone")
    folder.mkdir()
    file.rename(folder / ("train.npz" if zipfile.is_zipfile(file) else "train.csv"))
    return folder


@contextlib.contextmanager
def _use_as_temporary(folder: Path) -> Iterator[None]:
    "Put temporary files in `folder`: a move is then a rename, and one clean-up removes all."
    folder.mkdir(parents=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _refuse_outside() -> Iterator[None]:
    "Refuse tar members outside their folder, links out of it and devices, as Python 3.14 does."
    usual = vars(tarfile.TarFile)["extraction_filter"]
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = usual


@contextlib.contextmanager
def _hide_bar_unless_watched(url: str) -> Iterator[None]:
    "Show fastai's progress bar only for downloads at a terminal."
    if url.startswith("http") and sys.stdout.isatty():
        yield
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def _set_aside(path: Path) -> None:
    "Rename an incomplete folder, so that nothing in it is lost."
    aside = path.with_name(f"{path.name}.incomplete")
    n = 1
    while aside.exists():
        n += 1
        aside = path.with_name(f"{path.name}.incomplete-{n}")
    path.rename(aside)
    warnings.warn(f"{path} was incomplete and has been renamed to {aside}", stacklevel=4)
