"""The Jinja2 environment of the report, which escapes every text and shows it on one line."""
import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from digitfast.data.pictures import one_line_name

TEMPLATE = Path(__file__).parent / "report.html"


def report_environment() -> Environment:
    "Return the environment in which the report's template is rendered."
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=one_line)
    environment.filters |= {"count": "{:,}".format, "percent": percent, "seconds": seconds_text,
                            "wrappable": wrappable, "png_address": png_address}
    return environment


def one_line(value: Any) -> str:
    "Return markup unchanged, and anything else as text on one line whose characters all print."
    return value if isinstance(value, Markup) else one_line_name(str(value))


def wrappable(path: str) -> Markup:
    "Return a path as text that may be wrapped after each slash."
    return escape(one_line(path)).replace("/", Markup("/<wbr>"))


def png_address(image: np.ndarray) -> str:
    "Return a `data:` address that holds an image."
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def percent(part: float, digits: int = 2) -> Markup:
    return Markup(f"{100 * part:.{digits}f}\N{NO-BREAK SPACE}%")


def percent_tick(part: float) -> str:
    return f"{100 * part:.6g}%"


def interval_text(low: float, high: float) -> str:
    return f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"


def seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
