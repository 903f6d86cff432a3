"""The viewer's HTTP server: this machine only, GET only, nothing but the pages and slides of one output folder.

Who may ask: a request must name this machine as its host, which keeps out web pages that rebind a name of their own to
127.0.0.1, and begin with a secret that only the printed address has, which keeps out other users of the machine.
Slides are named by the ledger, never by a path; the files of the page are a fixed list.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from nuclix.engine.errors import DataError, NuclixError, SlideError, UsageError
from nuclix.engine.viewer.catalogue import Catalogue

ADDRESS = "127.0.0.1"
LOCAL_HOSTS = frozenset(("127.0.0.1", "localhost", "[::1]"))
_SECRET_BYTES = 12
_IDLE_SECONDS = 60.0  # a connection without a request is closed
_STATIC = Path(__file__).parent / "static"
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "outlines.js": ("outlines.js", "text/javascript; charset=utf-8"),
    "openseadragon.min.js": ("openseadragon.min.js", "text/javascript; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOREVER, _NEVER = "private, max-age=86400", "no-store"

log = logging.getLogger("nuclix")


class _Response(Exception):  # noqa: N818 (an answer that ends the request, not an error)
    """An answer other than 200."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ViewerServer(ThreadingHTTPServer):
    """Serves one output folder on 127.0.0.1.

    Parameters
    ----------
    catalogue : Catalogue
        The slides.
    port : int
        0 for one that is free.

    Attributes
    ----------
    url : str
        The address with its secret.

    Raises
    ------
    UsageError
        If the port is taken or may not be used.
    """

    daemon_threads = True

    def __init__(self, catalogue: Catalogue, port: int = 0) -> None:
        self.catalogue = catalogue
        self.secret = secrets.token_urlsafe(_SECRET_BYTES)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"--port {port}: can't be used ({reason}); choose another one") from error

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.secret}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a request broke off with: browsers hang up on tiles that are no longer needed."""
        log.debug("viewer: a request broke off", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "nuclix"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: ViewerServer

    def do_GET(self) -> None:
        """Answer a request with its content."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer a request without its content."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests out of the terminal."""
        log.debug("viewer: " + format, *args)

    def _answer(self, *, with_body: bool) -> None:
        try:
            content, kind, cache, extra = self._content()
            status = HTTPStatus.OK
        except _Response as response:
            content, kind, cache, extra = _text(str(response))
            status = response.status
        except (SlideError, DataError) as error:
            content, kind, cache, extra = _text(str(error))
            status = HTTPStatus.UNPROCESSABLE_ENTITY
        except NuclixError as error:
            content, kind, cache, extra = _text(str(error))
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        except Exception:
            log.exception("viewer: %s", self.path)
            content, kind, cache, extra = _text("internal error; the log has details")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Cache-Control": cache, **extra}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.close_connection |= bool(self.headers.get("Content-Length"))  # a body that nobody reads
        if with_body:
            self.wfile.write(content)

    def _content(self) -> tuple[bytes, str, str, Mapping[str, str]]:
        host = self.headers.get("Host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in LOCAL_HOSTS:
            raise _Response(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to 127.0.0.1 and localhost only")
        parts = [unquote_to_bytes(part) for part in urlsplit(self.path).path.split("/")[1:]]
        if not parts or not secrets.compare_digest(parts[0], self.server.secret.encode()):
            raise _Response(HTTPStatus.FORBIDDEN, "open the whole address that `nuclix view` printed")
        return respond(self.server.catalogue, parts[1:])


def _text(message: str) -> tuple[bytes, str, str, Mapping[str, str]]:
    return message.encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8", _NEVER, {}


def _json(value: Any) -> tuple[bytes, str, str, Mapping[str, str]]:
    return json.dumps(value, separators=(",", ":")).encode(), "application/json", _NEVER, {}


def respond(catalogue: Catalogue, parts: list[bytes]) -> tuple[bytes, str, str, Mapping[str, str]]:
    """Return content, media type, cache control and further headers of a path after the secret.

    Parameters
    ----------
    catalogue : Catalogue
        The slides.
    parts : list of bytes
        The decoded parts of the path.

    Returns
    -------
    tuple
        Content, media type, cache control, further headers.
    """
    if len(parts) == 1 and parts[0].decode("ascii", "replace") in _FILES:
        name, kind = _FILES[parts[0].decode("ascii")]
        return (_STATIC / name).read_bytes(), kind, _NEVER, {}
    if parts == [b"slides"]:
        return _json({"folder": catalogue.out.resolve().name, "slides": catalogue.listed()})
    if len(parts) >= 3 and parts[0] == b"slide" and parts[2].decode("ascii", "replace") in _ROUTES:
        numbers = [_whole(part) for part in (parts[1], *parts[3:])]
        return _of_slide(catalogue, numbers[0], parts[2].decode("ascii"), numbers[1:])
    raise _Response(HTTPStatus.NOT_FOUND, "no such page")


def _whole(part: bytes) -> int:
    """Return a whole number that is not negative."""
    if not (part.isdigit() and len(part) <= 12):
        raise _Response(HTTPStatus.NOT_FOUND, "no such page")
    return int(part)


def _of_slide(
    catalogue: Catalogue, number: int, kind: str, arguments: list[int]
) -> tuple[bytes, str, str, Mapping[str, str]]:
    count, route = _ROUTES[kind]
    if len(arguments) != count:
        raise _Response(HTTPStatus.NOT_FOUND, "no such page")
    try:
        return route(catalogue, catalogue.name(number), arguments)
    except (KeyError, IndexError) as error:
        raise _Response(HTTPStatus.NOT_FOUND, "no such slide, tile or nucleus") from error


def _facts(catalogue: Catalogue, name: str, _: list[int]) -> tuple[bytes, str, str, Mapping[str, str]]:
    with catalogue.session(name) as (session, problem):
        return _json({"name": name, **session.facts(), "problem": problem})


def _tile(catalogue: Catalogue, name: str, place: list[int]) -> tuple[bytes, str, str, Mapping[str, str]]:
    with catalogue.session(name) as (session, _):
        tile = session.tile(place[0], place[1], place[2])
    if tile is None:
        raise IndexError(place)
    return tile, "image/jpeg", _FOREVER, {}


def _outlines(catalogue: Catalogue, name: str, place: list[int]) -> tuple[bytes, str, str, Mapping[str, str]]:
    with catalogue.session(name) as (session, _):
        return _json(session.outlines(place[0], place[1]))


def _nucleus(catalogue: Catalogue, name: str, place: list[int]) -> tuple[bytes, str, str, Mapping[str, str]]:
    with catalogue.session(name) as (session, _):
        return _json(session.nucleus(place[0]))


def _density(catalogue: Catalogue, name: str, _: list[int]) -> tuple[bytes, str, str, Mapping[str, str]]:
    with catalogue.session(name) as (session, _problem):
        picture, top = session.density()
    return picture, "image/png", _NEVER, {"X-Nuclei-Per-Mm2": f"{top:.6g}"}


def _thumbnail(catalogue: Catalogue, name: str, _: list[int]) -> tuple[bytes, str, str, Mapping[str, str]]:
    content = catalogue.thumbnail(name)
    if content is None:
        raise KeyError(name)
    return content, "image/jpeg", _NEVER, {}


_Route = Callable[[Catalogue, str, list[int]], tuple[bytes, str, str, Mapping[str, str]]]
# How many whole numbers follow, and what answers.
_ROUTES: Mapping[str, tuple[int, _Route]] = {
    "facts": (0, _facts),
    "tile": (3, _tile),
    "outlines": (2, _outlines),
    "nucleus": (1, _nucleus),
    "density": (0, _density),
    "thumbnail": (0, _thumbnail),
}
