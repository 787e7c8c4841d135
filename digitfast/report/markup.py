"""Pieces of an HTML page: everything that is not ours becomes text that shows as it is."""
import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from digitfast.data.pictures import one_line_name


def png_address(image: np.ndarray) -> str:
    "An image as an address that holds it."
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def rows_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    top = "".join(f'<th scope="col">{as_text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{as_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts_table(facts: dict[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{as_text(key)}</th><td>{"–" if value is None else as_text(value)}</td></tr>'
                   for key, value in facts.items())
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def figure(caption: str, picture: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{picture}</figure>"


def note(text: str) -> str:
    "A sentence or two that say how to read what follows."
    return f'<p class="how">{escape(text)}</p>'


def as_text(value: Any) -> str:
    "Anything as text that shows as it is."
    return escape(one_line_name(str(value)))


def percent(part: float, digits: int = 2) -> str:
    return f"{100 * part:.{digits}f}\N{NO-BREAK SPACE}%"


def percent_tick(part: float) -> str:
    return f"{100 * part:.6g}%"


def interval_text(low: float, high: float) -> str:
    return f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"


def seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
