"""The web server of the viewer.

Slides are patient data, so: it listens on the loopback address unless told otherwise; every address begins
with a token, because other users of the machine reach the loopback too; a request under another host name is
refused, because a page elsewhere could point its own name here (DNS rebinding); what stores something must
come from a page of this server (origin, and a token that only such a page can read); only files and tiles of
a fixed list, no path is ever joined; no label or macro image exists here; nothing is to be kept by a cache;
the page may load nothing from elsewhere. Connections are counted, and those that are slow or idle are closed.
"""

import contextlib
import ipaddress
import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from wsi_ncmi.core.errors import InputError, SlideError, storage_fault
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.reporting.viewer.slide_pages import Answer, as_json

_LOG = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
TOKEN_VARIABLE = "WSI_NCMI_VIEW_TOKEN"  # noqa: S105 - its name
"""Names the token of the address behind a reverse proxy, which must know it; else it is random."""

MAX_CONNECTIONS = 64
HEAD_S = 20.0
"""Seconds that a connection may take to send a request, idle time before it included."""

ANSWER_S = 60.0
"""Seconds from there until the answer was taken."""

_POLL_S = 0.2
_MAX_BODY = 4 << 20
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,200}")
# The hash is that of the one style element that OpenSeadragon makes (no outline on touch screens).
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; "
        "style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='; "
        "img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Pages(Protocol):
    """What a server serves, by its address below the token."""

    def get(self, name: str, query: Mapping[str, str]) -> Answer | None:
        """Content and its type; None where there is nothing of that name.

        Raises:
            SlideError: A slide or tile can't be read.
        """

    def post(self, name: str, content: Any) -> Mapping[str, Any] | None:
        """Stores what a page sent; the answer, or None where there is nothing of that name.

        Raises:
            InputError: It can't be stored as it is.
            OSError: It can't be written.
        """

    def close(self) -> None:
        """Ends everything."""


class ViewerServer(AbstractContextManager["ViewerServer"]):
    """Serves pages until it is closed; use it as a context manager.

    Args:
        pages: What is served; closed with the server.
        port: Port; 0 takes a free one.
        listen: IP address to listen on.
        origin: Scheme and host at which a reverse proxy serves the pages, such as ``https://slides.example``.

    Attributes:
        url: Address to open: that of the proxy, or the server's own with the token.

    Raises:
        InputError: The port is taken, or the pages would be open to others without a proxy.
    """

    def __init__(
        self, pages: Pages, port: int = 0, listen: str = LOOPBACK, origin: str | None = None
    ) -> None:
        token = _checked(listen, origin)
        self._pages = pages
        self._server = _Server(pages, (listen, port), token or secrets.token_urlsafe(24))
        self.port = self._server.server_port
        for name in (LOOPBACK, "localhost"):
            self._server.origins[f"{name}:{self.port}"] = f"http://{name}:{self.port}"
        self.url = f"http://{LOOPBACK}:{self.port}/{self._server.token}/"
        if origin is not None:
            self._server.origins[urlsplit(origin).netloc] = origin
            self.url = f"{origin}/"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to serve in a thread of its own."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="viewer", daemon=True
        )
        self._thread.start()

    def serve_forever(self) -> None:
        """Serves here until interrupted."""
        self._server.serve_forever(_POLL_S)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends serving."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()
        self._pages.close()


def _checked(listen: str, origin: str | None) -> str:
    """The token that a proxy knows, empty without one."""
    try:
        is_local = ipaddress.ip_address(listen).is_loopback
    except ValueError:
        raise InputError(f"--listen takes an IP address such as 0.0.0.0, not {listen!r}.") from None
    if origin is None:
        if not is_local:
            raise InputError(
                f"--listen {listen} opens slides to other machines, so a reverse proxy must stand before it, "
                "with TLS and login: give the address at which it serves them, --origin https://NAME."
            )
        return ""
    if not _ORIGIN.fullmatch(origin):
        raise InputError(
            f"--origin takes https:// and a host, such as https://slides.example, not {origin!r}."
        )
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not _TOKEN.fullmatch(token):
        raise InputError(
            f"--origin needs the token that the reverse proxy puts before addresses: set {TOKEN_VARIABLE} to "
            "32 or more random letters and digits, and let the proxy pass requests on to http://HOST:PORT/TOKEN/."
        )
    return token


class _Server(ThreadingHTTPServer):
    """A bounded number of connections, each with a time by which it must be done."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, pages: Pages, address: tuple[str, int], token: str) -> None:
        self.pages, self.token, self.page_token = pages, token, secrets.token_urlsafe(24)
        self.origins: dict[str, str] = {}
        self._until: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"Port {address[1]} can't be used ({error}); give another --port, or none."
            ) from error

    def server_bind(self) -> None:
        """Without the look-up of the own name, which waits for a network that may not be there."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuses connections beyond the bound."""
        if len(self._until) < MAX_CONNECTIONS:
            self.allow(request, HEAD_S)
            return True
        with contextlib.suppress(OSError):
            request.settimeout(1)
            request.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        return False

    def allow(self, request: Any, seconds: float) -> None:
        """Gives a connection so much more time."""
        self._until[request] = time.monotonic() + seconds

    def service_actions(self) -> None:
        """Ends connections whose time is up."""
        now = time.monotonic()
        for request, until in list(self._until.items()):
            if now > until:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def close_request(self, request: Any) -> None:
        """Counts the connection no more."""
        self._until.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs what went wrong; a connection that ended early is nothing wrong."""
        gone = isinstance(sys.exc_info()[1], OSError)
        _LOG.log(logging.DEBUG if gone else logging.ERROR, "A request was not answered.", exc_info=True)


class _RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


_NOTHING = HTTPStatus.NOT_FOUND, "There is nothing here."


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "wsi-ncmi"
    sys_version = ""
    timeout = HEAD_S
    server: _Server

    def do_GET(self) -> None:
        """Answers a request."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Stores what a page sends."""
        self._answer(self._post)

    def _answer(self, act: Any) -> None:
        self.server.allow(self.request, ANSWER_S)
        try:
            self._send(HTTPStatus.OK, *act(self._name()))
        except _RefusedError as refused:
            self.close_connection = True  # what was not read of it would be taken for the next request
            self._send(refused.status, f"{refused}\n".encode(), "text/plain; charset=utf-8")
        except InputError as error:
            self._send(HTTPStatus.CONFLICT, f"{error}\n".encode(), "text/plain; charset=utf-8")
        except SlideError as error:
            _LOG.warning("%s", error)
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}\n".encode(), "text/plain; charset=utf-8")
        self.server.allow(self.request, HEAD_S)

    def _name(self) -> str:
        """The address below the token, of a request to this server."""
        if self.headers.get_all("Host", []) not in ([host] for host in self.server.origins):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "This host name is not served.")
        path = self.path.split("?", 1)[0]
        prefix, _, name = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(prefix.encode(), self.server.token.encode()) or not path.startswith(
            "/"
        ):
            raise _RefusedError(*_NOTHING)
        return name

    def _has_body(self) -> bool:
        return "Transfer-Encoding" in self.headers or self.headers.get_all("Content-Length", ["0"]) != ["0"]

    def _get(self, name: str) -> Answer:
        if self._has_body():
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "A request for a page has no content.")
        if name == "page_token.json":
            return as_json(self.server.page_token)
        query = dict(parse_qsl(urlsplit(self.path).query, max_num_fields=20))
        found = self.server.pages.get(name, query)
        if found is None:
            raise _RefusedError(*_NOTHING)
        return found

    def _post(self, name: str) -> Answer:
        headers = self.headers
        if headers.get_all("Origin", []) != [self.server.origins[headers["Host"]]]:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "This comes from a page of another server.")
        if headers.get("Content-Type") != "application/json":
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Only JSON is taken.")
        given = headers.get("X-Page-Token", "").encode("latin-1", "replace")
        if not secrets.compare_digest(given, self.server.page_token.encode()):
            raise _RefusedError(
                HTTPStatus.FORBIDDEN, "The page is of an earlier start of the viewer; reload it."
            )
        lengths = headers.get_all("Content-Length", [])
        if len(lengths) != 1 or not re.fullmatch(r"\d{1,9}", lengths[0]) or "Transfer-Encoding" in headers:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "The length of the content isn't told.")
        if int(lengths[0]) > _MAX_BODY:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This is too much to store at once.")
        try:
            content = parse_json(self.rfile.read(int(lengths[0])))
        except ValueError:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "This is no JSON.") from None
        try:
            answer = self.server.pages.post(name, content)
        except OSError as error:
            _LOG.error("%s", storage_fault(error) or error)
            reason = error.strerror or type(error).__name__
            raise _RefusedError(
                HTTPStatus.INSUFFICIENT_STORAGE, f"It could not be stored ({reason})."
            ) from error
        if answer is None:
            raise _RefusedError(*_NOTHING)
        return as_json(answer)

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Logs requests, which hold the token, at debug level only."""
        _LOG.debug(format, *args)
