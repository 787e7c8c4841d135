"""Makes executed notebooks fit to be kept: without what progress bars leave behind, and with small pictures.

    python tools/tidy_notebooks.py nbs
"""
import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image

LEFT_BEHIND = ("", "<div></div>")  # what an output's HTML comes to once its bar is done
COLOURS = 128  # of a picture: a plot has few, and a palette takes a third of the bytes


def tidied(
    notebook: dict,  # as its JSON
) -> dict:
    "`notebook` without the outputs that show nothing, its pictures with a palette."
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not shows_nothing(output)]
            for data in (output.get("data", {}) for output in cell["outputs"]):
                if "image/png" in data:
                    data["image/png"] = with_palette(data["image/png"])
    return notebook


def shows_nothing(
    output: dict,  # of a cell
) -> bool:
    "Whether `output` is all that is left of a progress bar."
    html = "".join(output.get("data", {}).get("text/html", "-")).strip()
    return html in LEFT_BEHIND or (html.startswith("<style>") and html.endswith("</style>"))


def with_palette(
    png: str,  # in base64
) -> str:
    "The picture with at most 128 colours, in base64; one that has a palette already is as it was."
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P":
        return png
    paper = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    file = io.BytesIO()
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # a dot keeps its colour
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.ipynb")):
        text = json.dumps(tidied(json.loads(path.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
