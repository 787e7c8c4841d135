"""Takes out of executed notebooks what progress bars leave behind: their style sheet, and boxes that are empty.

    python tools/tidy_notebooks.py nbs
"""
import json
import sys
from pathlib import Path

LEFT_BEHIND = ("", "<div></div>")  # what an output's HTML comes to once its bar is done


def tidied(
    notebook: dict,  # as its JSON
) -> dict:
    "`notebook` without the outputs that show nothing."
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not shows_nothing(output)]
    return notebook


def shows_nothing(
    output: dict,  # of a cell
) -> bool:
    "Whether `output` is all that is left of a progress bar."
    html = "".join(output.get("data", {}).get("text/html", "-")).strip()
    return html in LEFT_BEHIND or (html.startswith("<style>") and html.endswith("</style>"))


if __name__ == "__main__":
    for file in sorted(Path(sys.argv[1]).glob("*.ipynb")):
        text = json.dumps(tidied(json.loads(file.read_text(encoding="utf-8"))), indent=1, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
