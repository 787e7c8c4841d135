"""Documents of several pages: PDF and TIFF."""
import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from digitfast.data.pictures import one_line_name, raise_bad_image, read_grey
from digitfast.errors import BadImage

DOCUMENTS = {".pdf"}  # suffixes besides those of pictures
POINTS = 72  # per inch, the unit of a PDF


def document_pages(
    file: str | Path,  # .pdf, .tif or .tiff; any other picture is its only page
) -> Iterator[tuple[str, Path | Image.Image]]:  # name, such as "scan.pdf:2", and the picture
    """Yield the pages of a document, which `read_digits` and `read_digit` take.

    Raises: `BadImage`, also for a PDF without pypdfium2.
    """
    file = Path(file)
    if file.suffix.lower() in DOCUMENTS:
        pages = _pages_of_pdf(file)
    elif file.suffix.lower() in (".tif", ".tiff") and _page_count(file) > 1:
        pages = _pages_of_tiff(file)
    else:
        yield str(file), file
        return
    yield from ((f"{file}:{i}", page) for i, page in enumerate(pages, 1))


def _pages_of_pdf(
    file: Path,
    dpi: int = 200,  # pixels per inch
    max_pixels: int = 20_000_000,  # of a page
) -> Iterator[Image.Image]:
    try:
        import pypdfium2
    except ImportError:
        raise BadImage(f"{one_line_name(file)} needs pypdfium2: pip install digitfast[pdf]; or "
                       "save its pages as PNG") from None
    name = one_line_name(file)
    with raise_bad_image(name):
        document = pypdfium2.PdfDocument(file)
        pages = len(document)
    for i in range(pages):
        with raise_bad_image(name):
            width, height = document[i].get_size()
            scale = min(dpi / POINTS, math.sqrt(max_pixels / max(1, width * height)))
            image = document[i].render(scale=scale, grayscale=True).to_pil()
        yield image


def _page_count(file: Path) -> int:
    with raise_bad_image(one_line_name(file)), Image.open(file, formats=("TIFF",)) as image:
        return image.n_frames


def _pages_of_tiff(file: Path) -> Iterator[Image.Image]:
    for i in range(_page_count(file)):
        with raise_bad_image(one_line_name(file)), Image.open(file, formats=("TIFF",)) as image:
            image.seek(i)
            grey = read_grey(image.copy())
        yield grey
