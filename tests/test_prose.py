"""What people read is idiomatic: phrases that made sentences stumble before do not come back."""
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Phrase: what to write instead.
PHRASES = {
    r"(is|are) wanted\b": "must be",
    r"(is|are) told of\b": "is reported",
    r"comes? along\b": "bundled",
    r"\bgo(es)? on (with|at)\b": "resume",
    r"\banew\b": "again",
    r"\bas ever\b": "unchanged",
    r"\bto be had\b": "available",
    r"\bso that nobody\b": "so that no one, or name who",
}
TEXTS = [
    *sorted((ROOT / "digitfast").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py")),
    *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "nbs").glob("*.ipynb")),
    *sorted((ROOT / "digitfast" / "draw").glob("draw.*")), ROOT / "digitfast/report/report.html",
    ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "settings.ini",
    ROOT / "benchmarks" / "README.md", ROOT / "digitfast/packed/README.md"]


def prose(file: Path) -> str:
    "Return what a person reads in `file`; of a notebook its cells without their outputs."
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return " ".join(text.split())


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_phrase_that_stumbles(file):
    text = prose(file)
    found = {phrase: (match.group(), instead) for phrase, instead in PHRASES.items()
             if (match := re.search(phrase, text, re.IGNORECASE))}
    assert not found
