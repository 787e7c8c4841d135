"""Tidy executed notebooks for the repository: remove leftovers of progress bars, shrink pictures.

    python tools/tidy_notebooks.py nbs
"""
import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image


def tidied(
    notebook: dict,  # from its JSON
) -> dict:
    "Return `notebook` without the outputs that show nothing, and with a palette in its pictures."
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
    "Return whether `output` is the leftover of a progress bar: an empty element or a bare style."
    html = "".join(output.get("data", {}).get("text/html", "-")).strip()
    return html in ("", "<div></div>") or (html.startswith("<style>") and html.endswith("</style>"))


def with_palette(
    png: str,  # in base64
    colours: int = 128,  # a plot has few, and a palette takes a third of the bytes
) -> str:
    "Return the picture with a palette, in base64; one that has a palette stays unchanged."
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P":
        return png
    paper = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    file = io.BytesIO()
    few = image.quantize(colours, Image.Quantize.MAXCOVERAGE,  # which keeps the colour of a dot
                         dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.ipynb")):
        notebook = tidied(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
