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


def test_what_progress_bars_leave_behind_is_taken_out():
    def html(*lines): return {"output_type": "display_data", "data": {"text/html": list(lines)}}
    table = html("<div><table>", "</table></div>")
    printed = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
    left = [html(), html("<div></div>"), html("\n<style>\n", "progress { width: 300px; }\n", "</style>\n")]
    notebook = {"cells": [{"cell_type": "markdown", "source": []},
                          {"cell_type": "code", "outputs": [left[0], printed, left[1], table, left[2]]}]}
    assert tidy_notebooks.tidied(notebook)["cells"][1]["outputs"] == [printed, table]


def test_a_picture_gets_a_palette_once():
    plot = Image.new("RGBA", (80, 60), (255, 255, 255, 0))  # as matplotlib's: transparent paper
    ImageDraw.Draw(plot).line([(0, 0), (79, 59)], fill=(31, 119, 180, 255), width=3)
    small = tidy_notebooks.with_palette(png(plot))
    picture = opened(small)
    assert picture.mode == "P" and picture.convert("RGB").getpixel((40, 30)) == (31, 119, 180)
    assert picture.convert("RGB").getpixel((70, 5)) == (255, 255, 255)
    assert tidy_notebooks.with_palette(small) == small
