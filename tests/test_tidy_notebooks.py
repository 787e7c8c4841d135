import base64
import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.append(str(Path(__file__).parent.parent / "tools"))
import tidy_notebooks


def png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def opened(content: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_leftovers_of_progress_bars_are_removed():
    def html(*lines): return {"output_type": "display_data", "data": {"text/html": list(lines)}}
    table = html("<div><table>", "</table></div>")
    printed = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
    left = [html(), html("<div></div>"),
            html("\n<style>\n", "progress { width: 300px; }\n", "</style>\n")]
    outputs = [left[0], printed, left[1], table, left[2]]
    notebook = {"cells": [{"cell_type": "markdown", "source": []},
                          {"cell_type": "code", "outputs": outputs}]}
    assert tidy_notebooks.tidied(notebook)["cells"][1]["outputs"] == [printed, table]


def test_a_picture_gets_a_palette_once():
    plot = Image.new("RGBA", (400, 300), (255, 255, 255, 0))  # as matplotlib's: transparent paper
    pen = ImageDraw.Draw(plot)
    for x in range(256):
        pen.line([(x, 0), (x, 200)], fill=(x, x, x, 255))
    dots = {(300, 50): (255, 127, 14), (300, 80): (44, 160, 44), (300, 110): (214, 39, 40)}
    for (x, y), colour in dots.items():
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(*colour, 255))
    small = tidy_notebooks.with_palette(png(plot))
    picture = opened(small)
    assert picture.mode == "P" and picture.convert("RGB").getpixel((390, 290)) == (255, 255, 255)
    for place, colour in dots.items():
        found = picture.convert("RGB").getpixel(place)
        assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) <= 2
    assert tidy_notebooks.with_palette(small) == small
