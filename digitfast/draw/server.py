"""Serve the draw page: a browser page on this computer that reads drawings and pictures."""
import asyncio
import base64
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from digitfast.draw.kept import KeptDrawings
from digitfast.errors import BadSetting, DigitError
from digitfast.inference.predictor import Predictor
from digitfast.reading.reader import read_digits
from digitfast.reading.result import Digit, described

FILES = {"/": ("draw.html", "text/html"), "/draw.css": ("draw.css", "text/css"),
         "/draw.js": ("draw.js", "text/javascript"), "/icon.svg": ("icon.svg", "image/svg+xml")}
HOST = "127.0.0.1"
MAX_BYTES = 20_000_000  # of one picture; one of a phone's, with 12 megapixels, has about 4 million
HEADERS = {
    # the page may load what this server has, and nothing else; no other page may frame it
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "connect-src 'self'; img-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store"}


def serve_draw_page(
    predictor: Predictor,  # that answers
    port: int = 0,  # of this computer, 1 to 65535; 0: one that is free
    ready: Callable[[str], Any] = print,  # called with the page's address when it can be opened
    keep: str | Path | None = None,  # folder for drawings that are put right; None: none is kept
) -> None:
    """Serve the draw page on 127.0.0.1 until Ctrl-C, which raises `KeyboardInterrupt`.

    Raises: `BadSetting` for a port or a folder that cannot be used.
    """
    kept = None if keep is None else KeptDrawings(Path(keep).expanduser(), predictor.vocab)
    with socket.socket() as listening:
        try:
            # a port is free again as soon as the last page's server has ended
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HOST, port))
            listening.listen(128)
        except (OSError, OverflowError) as e:
            reason = getattr(e, "strerror", None) or "it must be 1 to 65535"
            raise BadSetting(f"port {port} cannot be used: {reason}; "
                             "use another one, or 0 for a free one") from e
        # a browser that connects now waits until the server runs
        ready(f"http://{HOST}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(draw_app(predictor, kept), log_level="error", server_header=False,
                                timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listening])


def draw_app(
    predictor: Predictor,  # that answers
    kept: KeptDrawings | None = None,  # gets the drawings that are put right; None: none is kept
) -> Starlette:
    """Return the page as an ASGI application.

    It serves four files, the network's name, and `POST /read` for pictures. Pictures are read one
    after another in one other thread, so the server keeps answering. With `kept` it also serves
    `POST /keep` for a drawing with its label, and `DELETE /keep`, which takes the last one back.
    """
    worker = ThreadPoolExecutor(1, "reading")
    worker.submit(_answer, _blank(), "drawing", predictor)  # loads what later readings use

    async def read(request: Request) -> Response:
        picture = await _body(request)
        if picture is None:
            return _problem(413, f"a picture must be at most {MAX_BYTES // 10**6} MB; "
                                 "make it smaller, or cut out a part")
        ink = request.query_params.get("ink", "auto")
        try:
            loop = asyncio.get_running_loop()
            return JSONResponse(
                await loop.run_in_executor(worker, _answer, picture, ink, predictor))
        except DigitError as e:
            return _problem(400, str(e))
        except asyncio.CancelledError:  # a second after Ctrl-C the picture was still being read
            return _problem(503, "digitfast draw has ended")

    async def network(request: Request) -> Response:
        return JSONResponse(_facts(predictor, kept))

    routes = [*(Route(path, _file(*file)) for path, file in FILES.items()),
              Route("/network", network),
              Route("/read", read, methods=["POST"])]
    if kept:
        routes += [Route("/keep", partial(_keep, kept), methods=["POST"]),
                   Route("/keep", partial(_take_back, kept), methods=["DELETE"])]
    trusted_host = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"],
                              www_redirect=False)
    return Starlette(routes=routes, middleware=[Middleware(_OwnPage), trusted_host])


class _OwnPage:
    """Refuse requests of other sites' pages, and add `HEADERS` to each answer.

    In `Origin` a browser names the site whose page sends a request, and no page can change that.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        own = f"http://{headers.get('host')}"
        if headers.get("origin", own) != own:
            refusal = _problem(403, f"only {own} may ask, not a page of {headers['origin']}")
            await refusal(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)


def _file(name: str, media_type: str) -> Callable:
    content = (Path(__file__).parent / name).read_bytes()

    async def file(request: Request) -> Response:
        return Response(content, media_type=media_type)
    return file


async def _body(request: Request) -> bytes | None:
    """Return what was sent; None if it is more than `MAX_BYTES`, or if the sender has gone.

    Read all of it in any case, but keep no more than that.
    """
    body = bytearray()
    with suppress(ClientDisconnect):
        async for chunk in request.stream():
            body += chunk[:MAX_BYTES + 1 - len(body)]
        return bytes(body) if len(body) <= MAX_BYTES else None
    return None


def _answer(picture: bytes | np.ndarray, ink: str, predictor: Predictor) -> dict[str, Any]:
    "Return what is written in a picture, and what the network saw of each mark."
    reading = read_digits(picture, predictor, ink)
    marks = [digit for line in reading.lines for digit in line]
    if reading.digits:
        text = reading.text
    elif any(digit.answer == "unsure" for digit in marks):
        text = "unsure"
    else:
        text = "no digit"
    return {"text": text, "marks": [_mark(digit) for digit in marks]}


def _mark(digit: Digit) -> dict[str, Any]:
    return {**described(digit), "answer": digit.answer, "no_digit": digit.no_digit,
            "probabilities": list(digit.probabilities.values()),
            "pixels": base64.b64encode(digit.image.tobytes()).decode()}


async def _keep(kept: KeptDrawings, request: Request) -> Response:
    "Keep the digit in a `box` of the picture that was sent, under its `label`."
    picture = await _body(request)
    if picture is None:
        return _problem(413, "the picture is too large to be kept")
    try:
        left, top, right, bottom = map(int, request.query_params.get("box", "").split(","))
        label = request.query_params.get("label", "")
        file = kept.keep(picture, label, (left, top, right, bottom))
    except DigitError as e:
        return _problem(400, str(e))
    except ValueError:
        return _problem(400, "box must be left,top,right,bottom in pixels")
    except OSError as e:
        return _problem(500, f"the drawing could not be kept: {e}")
    return JSONResponse({"file": str(file)})


async def _take_back(kept: KeptDrawings, request: Request) -> Response:
    file = kept.take_back()
    return JSONResponse({"file": None if file is None else str(file), "left": len(kept.files)})


def _facts(predictor: Predictor, kept: KeptDrawings | None) -> dict[str, Any]:
    return {"vocab": predictor.vocab,
            "name": predictor.facts.get("run") or predictor.arch,
            "max_bytes": MAX_BYTES,
            "keep": str(kept.folder) if kept else None}


def _blank() -> np.ndarray:
    "Return a page with one stroke, which goes through each step of reading."
    page = np.full((128, 128), 255, np.uint8)
    page[30:100, 60:68] = 0
    return page


def _problem(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status)
