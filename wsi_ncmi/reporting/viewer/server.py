"""The local web server of one slide.

Slides are patient data, so: it listens on the loopback address alone; every address begins with a random
token, because other users of the machine reach the loopback too; a request under another host name is
refused, because a page elsewhere could point its own name here (DNS rebinding); nothing but GET; only files
and tiles of a fixed list, no path is ever joined; no label or macro image exists here; nothing is to be kept
by a cache; the page may load nothing from elsewhere.
"""

import io
import json
import logging
import re
import secrets
import threading
from contextlib import AbstractContextManager
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.reporting.heatmaps.drawing import rasterise
from wsi_ncmi.reporting.heatmaps.values import SCALES, colours_of, scaled
from wsi_ncmi.reporting.viewer.deepzoom import DeepZoom
from wsi_ncmi.reporting.viewer.viewer_data import ViewerData

_LOG = logging.getLogger(__name__)
_ADDRESS = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_ASSETS = {
    "": ("index.html", "text/html; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "overlays.js": ("overlays.js", "text/javascript; charset=utf-8"),
    "viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "openseadragon.min.js": ("vendor/openseadragon.min.js", "text/javascript; charset=utf-8"),
}
_SLIDE_TILE = re.compile(r"slide/(\d{1,2})/(\d{1,6})_(\d{1,6})\.jpg")
_HEAT_TILE = re.compile(r"heat/(\d{1,3})/(percentile|absolute)/(\d{1,2})/(\d{1,6})_(\d{1,6})\.png")
# The hash is that of the one style element that OpenSeadragon makes (no outline on touch screens).
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


class ViewerServer(AbstractContextManager["ViewerServer"]):
    """Serves one slide until it is closed; use it as a context manager.

    Args:
        data: Slide and overlays; its slide stays open until after :meth:`close`.
        port: Port; 0 takes a free one.

    Attributes:
        url: Address to open, with the token.

    Raises:
        InputError: The port is taken.
    """

    def __init__(self, data: ViewerData, port: int = 0) -> None:
        self._token = secrets.token_urlsafe(16)
        self._pages = _Pages(data)

        class Handler(_Handler):
            pages, token = self._pages, self._token

        try:
            self._server = _LoopbackServer((_ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"Port {port} can't be used ({error}); give another --port, or none.") from error
        self._server.daemon_threads = True
        self.port = Handler.port = self._server.server_port
        self.url = f"http://{_ADDRESS}:{self.port}/{self._token}/"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to serve in a thread of its own."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="viewer", daemon=True)
        self._thread.start()

    def serve_forever(self) -> None:
        """Serves here until interrupted."""
        self._server.serve_forever()

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


class _Pages:
    """Everything that can be asked for, by its address below the token."""

    def __init__(self, data: ViewerData) -> None:
        self._data = data
        self._zoom = DeepZoom(data.slide)
        self._values = lru_cache(maxsize=64)(self._scaled)
        self._texts = {
            "info.json": _json(data.info(self._zoom.tile_px)),
            "tiles.json": _json(data.tile_json()),
            "shapes.json": _json(data.shape_json()),
        }
        folder = resources.files("wsi_ncmi.reporting.viewer") / "assets"
        self._assets = {name: ((folder / file).read_bytes(), kind) for name, (file, kind) in _ASSETS.items()}

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Content and its type; None where there is nothing of that name.

        Raises:
            SlideError: A tile can't be read.
        """
        if name in self._assets:
            return self._assets[name]
        if name in self._texts:
            return self._texts[name], "application/json"
        if match := _SLIDE_TILE.fullmatch(name):
            level, column, row = (int(text) for text in match.groups())
            if not self._zoom.has(level, column, row):
                return None
            return self._zoom.jpeg(level, column, row), "image/jpeg"
        if match := _HEAT_TILE.fullmatch(name):
            return self._heat(int(match[1]), match[2], *(int(match[i]) for i in (3, 4, 5)))
        return None

    def close(self) -> None:
        self._zoom.close()

    def _heat(self, layer: int, scale: str, level: int, column: int, row: int) -> tuple[bytes, str] | None:
        import numpy as np
        from PIL import Image

        tiles = self._data.tiles
        if tiles is None or layer >= len(tiles.layers) or not self._zoom.has(level, column, row):
            return None
        window, shape = self._zoom.window(level, column, row)
        boxes, values = self._values(layer, scale)
        mean, covered = rasterise(boxes, values, window, shape)
        pixels = np.concatenate(
            (colours_of(mean), np.rint(covered * 255).astype(np.uint8)[..., None]), axis=2
        )
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue(), "image/png"

    def _scaled(self, layer: int, scale: str) -> tuple[Any, Any]:
        tiles = self._data.tiles
        assert tiles is not None
        assert scale in SCALES
        return tiles.boxes, scaled(tiles.layers[layer], scale)


class _LoopbackServer(ThreadingHTTPServer):
    """Without the name look-up of the standard library's, which waits for a network that may not be there."""

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _ADDRESS, int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "wsi-ncmi"
    sys_version = ""
    timeout = 60
    pages: _Pages
    token: str
    port: int

    def do_GET(self) -> None:
        """Answers a request."""
        if not self._is_local(self.headers.get("Host", "")):
            self._send(HTTPStatus.FORBIDDEN, b"This host name is not served.\n", "text/plain")
            return
        path = self.path.split("?", 1)[0]
        prefix, _, name = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(prefix.encode(), self.token.encode()) or not path.startswith("/"):
            self._send(HTTPStatus.NOT_FOUND, b"There is nothing here.\n", "text/plain")
            return
        try:
            found = self.pages.get(name)
        except SlideError as error:
            _LOG.warning("%s", error)
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, b"This tile can't be read.\n", "text/plain")
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, b"There is nothing here.\n", "text/plain")
            return
        self._send(HTTPStatus.OK, *found)

    def _is_local(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        return name in _NAMES and port == str(self.port)

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Logs requests, which hold the token, at debug level only."""
        _LOG.debug(format, *args)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
