import sys

import numpy as np
import pytest
from PIL import Image

from digitfast import document_pages
from digitfast.data.pictures import read_grey
from digitfast.errors import BadImage
from digitfast.reading.answers import predict_pictures


@pytest.fixture
def pages():
    "Two pages of 200 × 100 pixels, with a bar on the left and on the right."
    found = []
    for left in (20, 160):
        page = Image.new("L", (200, 100), 255)
        page.paste(0, (left, 20, left + 10, 80))
        found.append(page)
    return found


def is_left(page):
    "Whether the ink of a page is on its left."
    ink = 255 - np.asarray(read_grey(page)).astype(int)
    return ink[:, :ink.shape[1] // 2].sum() > ink[:, ink.shape[1] // 2:].sum()


@pytest.mark.parametrize("suffix", [".pdf", ".tif", ".TIFF"])
def test_pages(pages, tmp_path, suffix):
    file = tmp_path / f"scan{suffix}"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    names, found = zip(*document_pages(file), strict=True)
    assert names == (f"{file}:1", f"{file}:2")
    assert [is_left(page) for page in found] == [True, False]


def test_a_page_of_a_pdf_has_200_pixels_per_inch(pages, tmp_path):
    pages[0].save(tmp_path / "scan.pdf", resolution=100)
    (_, page), = document_pages(tmp_path / "scan.pdf")
    assert page.size == (400, 200)


def test_a_huge_page_of_a_pdf_is_made_smaller(tmp_path):
    Image.new("L", (2000, 2000), 255).save(tmp_path / "scan.pdf", resolution=10)
    (_, page), = document_pages(tmp_path / "scan.pdf")
    assert 19_000_000 < page.width * page.height <= 20_100_000


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_picture_is_its_only_page(pages, tmp_path, name):
    pages[0].save(tmp_path / name)
    assert list(document_pages(tmp_path / name)) == [(str(tmp_path / name), tmp_path / name)]


@pytest.mark.parametrize("name", ["scan.pdf", "scan.tif"])
def test_damaged_documents(tmp_path, name):
    (tmp_path / name).write_bytes(b"no document")
    with pytest.raises(BadImage, match=f"{name} cannot be read as a picture"):
        list(document_pages(tmp_path / name))


def test_without_pypdfium2(pages, tmp_path, monkeypatch):
    pages[0].save(tmp_path / "scan.pdf")
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(BadImage, match=r"scan.pdf needs pypdfium2: pip install digitfast\[pdf\]"):
        list(document_pages(tmp_path / "scan.pdf"))


@pytest.fixture
def heic(pages, tmp_path):
    import pillow_heif
    pillow_heif.from_pillow(pages[0]).save(tmp_path / "photo.heic")
    return tmp_path / "photo.heic"


def test_a_heic(heic):
    assert is_left(heic)


def test_without_pillow_heif(heic, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImage, match=r"photo.heic is a HEIC, which needs pillow-heif: pip"):
        read_grey(heic)


def test_read_answers_for_each_page(pages, tmp_path, run_cli):
    file = tmp_path / "scan.pdf"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    code, out, _ = run_cli("read", file)
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [f"{file}:1", f"{file}:2"]


def test_a_folder_may_hold_documents(pages, tmp_path, run_cli):
    (tmp_path / "scans").mkdir()
    pages[0].save(tmp_path / "scans/scan.pdf")
    code, out, err = run_cli("predict", tmp_path / "scans")
    assert (code, err) == (0, "")
    assert out.startswith(str(tmp_path / "scans/scan.pdf:1"))


def test_other_pictures_are_read_while_a_page_is_out(pages, tmp_path):
    file = tmp_path / "scan.tif"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "a.png")
    for _, page in document_pages(file):
        assert predict_pictures([tmp_path / "a.png"])[0]["answer"]
        assert page.size == (200, 100)


def test_a_figure_shows_one_page(pages, tmp_path, run_cli):
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    code, _, err = run_cli("read", tmp_path / "scan.tif", "--boxes", "boxes.png")
    assert code == 1
    assert "boxes.png can show only one picture" in err
