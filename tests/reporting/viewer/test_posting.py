"""What a server stores, for whom, and how it keeps slow and foreign clients off."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.reporting.viewer import ViewerServer
from wsi_ncmi.reporting.viewer import server as module
from wsi_ncmi.reporting.viewer.server import TOKEN_VARIABLE

TOKEN = "t" * 40


class Kept:
    """Pages that keep what is posted."""

    def __init__(self) -> None:
        self.stored: list[Any] = []

    def get(self, name: str, query: Mapping[str, str]) -> tuple[bytes, str] | None:
        return (f"{name} {dict(query)}".encode(), "text/plain") if name != "nowhere" else None

    def post(self, name: str, content: Any) -> Mapping[str, Any] | None:
        if content == "wrong":
            raise InputError("This is wrong.")
        if content == "full":
            raise OSError(28, "No space left on device")
        if name == "nowhere":
            return None
        self.stored.append(content)
        return {"stored": len(self.stored)}

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def server(kept: Kept) -> Iterator[ViewerServer]:
    with ViewerServer(kept) as running:
        running.start()
        yield running


@pytest.fixture
def pages(kept: Kept) -> Kept:
    kept.stored.clear()
    return kept


def below(server: ViewerServer, name: str) -> str:
    return f"/{server._server.token}/{name}"


def request(server: ViewerServer, method: str, name: str, headers: Mapping[str, str | None] = {}, body: bytes = b"") -> tuple[int, str]:  # fmt: skip
    """Asks as the page would, but for the headers that are given; None leaves one out."""
    own = f"127.0.0.1:{server.port}"
    usual: dict[str, str | None] = {"Host": own}
    if method == "POST":
        usual |= {
            "Origin": f"http://{own}", "Content-Type": "application/json",
            "X-Page-Token": server._server.page_token, "Content-Length": str(len(body)),
        }  # fmt: skip
    lines = [f"{k}: {v}" for k, v in {**usual, **headers}.items() if v is not None]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        head = f"{method} {below(server, name)} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines)
        connection.sendall(head.encode() + b"\r\n" + body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


def test_a_page_of_the_server_stores(server: ViewerServer, pages: Kept) -> None:
    assert json.loads(request(server, "GET", "page_token.json")[1]) == server._server.page_token
    assert request(server, "POST", "x", body=b'{"a": 1}') == (200, '{"stored":1}')
    assert pages.stored == [{"a": 1}]
    assert request(server, "GET", "x?a=%C3%BC&b=1&a=2")[1] == "x {'a': '2', 'b': '1'}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:PORT"}, 403),  # another origin than that of the address
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "https://127.0.0.1:PORT"}, 403),
        ({"Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"}, 403),  # DNS rebinding
        ({"X-Page-Token": None}, 403),
        ({"X-Page-Token": "x" * 32}, 403),
        ({"X-Page-Token": "\u00fc"}, 403),
        ({"Content-Type": "text/plain"}, 415),  # what a form of another page can send
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": None}, 415),
        ({"Content-Length": None}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "8, 8"}, 411),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "99999999"}, 413),
    ],
)  # fmt: skip
def test_others_store_nothing(
    server: ViewerServer, pages: Kept, headers: Mapping[str, str | None], status: int
) -> None:
    given = {k: v and v.replace("PORT", str(server.port)) for k, v in headers.items()}
    assert request(server, "POST", "x", given, b'{"a": 1}')[0] == status
    assert pages.stored == []


def test_without_the_token_of_the_address_nothing_is_stored(server: ViewerServer, pages: Kept) -> None:
    assert request(server, "POST", "../x", body=b"1")[0] == 200  # no path is joined: the name is "../x"
    address = below(server, "x").replace(server._server.token, TOKEN)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", address, b"1", {"Origin": f"http://127.0.0.1:{server.port}"})
    assert connection.getresponse().status == 404
    assert pages.stored == [1]


@pytest.mark.parametrize(
    ("body", "name", "status", "words"),
    [
        (b"no json", "x", 400, "no JSON"),
        (b'"wrong"', "x", 409, "This is wrong."),
        (b'"full"', "x", 507, "No space left"),
        (b"1", "nowhere", 404, "nothing here"),
    ],
)
def test_what_can_not_be_stored_is_told(
    server: ViewerServer, body: bytes, name: str, status: int, words: str
) -> None:
    found = request(server, "POST", name, body=body)
    assert found[0] == status
    assert words in found[1]


@pytest.mark.parametrize(
    "header", ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: 127.0.0.1:PORT"]
)
def test_no_second_request_hides_in_the_first(server: ViewerServer, pages: Kept, header: str) -> None:
    hidden = f"GET {below(server, 'hidden')} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        lines = f"Host: 127.0.0.1:{server.port}\r\n{header.replace('PORT', str(server.port))}\r\n\r\n"
        connection.sendall((f"GET {below(server, 'x')} HTTP/1.1\r\n{lines}{hidden}").encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(b" ")[1] in (b"400", b"403")
    assert b"hidden" not in answer


def test_behind_a_proxy_its_name_and_token_count(pages: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with ViewerServer(pages, listen="127.0.0.1", origin="https://slides.example") as server:
        server.start()
        assert server.url == "https://slides.example/"
        assert below(server, "x") == f"/{TOKEN}/x"
        proxied = {"Host": "slides.example"}
        assert request(server, "GET", "x", proxied)[0] == 200
        assert request(server, "GET", "x", {"Host": "evil.example"})[0] == 403
        assert request(server, "POST", "x", {**proxied, "Origin": "https://slides.example"}, b"1")[0] == 200
        for origin in ("http://slides.example", "https://evil.example", f"http://127.0.0.1:{server.port}"):
            assert request(server, "POST", "x", {**proxied, "Origin": origin}, b"1")[0] == 403
    assert pages.stored == [1]


def test_an_open_address_is_listened_on_behind_a_proxy_alone(
    pages: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with ViewerServer(pages, listen="0.0.0.0", origin="https://slides.example:8443") as server:
        assert server._server.server_address[0] == "0.0.0.0"
    with pytest.raises(InputError, match="a reverse proxy must stand before it"):
        ViewerServer(pages, listen="0.0.0.0")
    with pytest.raises(InputError, match="takes an IP address"):
        ViewerServer(pages, listen="slides.example")
    for origin in ("slides.example", "https://slides.example/x", "ftp://slides.example", "https://a b", ""):
        with pytest.raises(InputError, match="--origin takes"):
            ViewerServer(pages, origin=origin)
    for token in ("", "short", "with a blank " * 4, "ü" * 40):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with pytest.raises(InputError, match=TOKEN_VARIABLE):
            ViewerServer(pages, origin="https://slides.example")


def test_slow_and_idle_clients_are_ended(server: ViewerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_S", 0.3)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        for byte in below(server, "x").encode():
            try:
                slow.sendall(bytes([byte]))
                slow.settimeout(0.05)
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - started < 5  # each byte in time, but not all of them
    assert request(server, "GET", "x")[0] == 200


def test_connections_are_bounded(server: ViewerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(2)]
    assert request(server, "GET", "x")[0] == 503
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 5
    while (status := request(server, "GET", "x")[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert status == 200
