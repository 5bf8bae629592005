"""The local server: what it serves, and everything that it refuses."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from tests.reporting.heatmaps.tiles import values
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.reporting.heatmaps.values import colours_of, scaled
from wsi_ncmi.reporting.viewer import Shape, SlidePages, ViewerData, ViewerServer
from wsi_ncmi.slides import open_slide

TILES = values(8, 6, (128.0, 128.0))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerServer]:
    path = tmp_path_factory.mktemp("slide") / "s.png"
    pixels = np.random.default_rng(0).integers(
        0, 255, (TILES.size_level0[1], TILES.size_level0[0], 3), np.uint8
    )
    Image.fromarray(pixels).save(path)
    with open_slide(path) as slide:
        shapes = (Shape("tissue", [shapely.box(10, 20, 500.25, 400)]), Shape("</script>", [], ["<b>"]))
        content = ViewerData("s", slide, (0.5, 0.5), TILES, shapes, {"size": "x"}, ("a note",))
        with ViewerServer(SlidePages(content)) as running:
            running.start()
            yield running


def ask(
    server: ViewerServer, path: str, *, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", f"127.0.0.1:{server.port}" if host is None else host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def below(server: ViewerServer, name: str) -> str:
    return "/" + server.url.split("/", 3)[3] + name


def test_it_serves_the_page_with_everything_it_asks_for(server: ViewerServer) -> None:
    status, headers, page = ask(server, below(server, ""))
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for name in ("viewer.js", "overlays.js", "viewer.css", "openseadragon.min.js"):
        assert f'"{name}"' in page.decode()
        assert ask(server, below(server, name))[0] == 200
    assert b"http" not in page.replace(b"http-equiv", b"")


def test_nothing_in_the_page_loads_from_elsewhere(server: ViewerServer) -> None:
    for name in ("", "viewer.js", "overlays.js", "viewer.css"):
        content = ask(server, below(server, name))[2].decode()
        assert "//" not in content.replace("// ", "").replace('"use strict";', ""), name
    policy = ask(server, below(server, ""))[1]["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_what_is_told_of_slide_tiles_and_outlines(server: ViewerServer) -> None:
    info, tiles, shapes = (
        json.loads(ask(server, below(server, f"{n}.json"))[2]) for n in ("info", "tiles", "shapes")
    )
    assert (info["width"], info["height"]) == TILES.size_level0
    assert [layer["name"] for layer in info["layers"]] == [layer.name for layer in TILES.layers]
    np.testing.assert_array_equal(np.reshape(tiles["coords"], (-1, 2)), TILES.coords)
    np.testing.assert_allclose(tiles["layers"][2], TILES.layers[2].values, rtol=1e-5)
    ring = np.reshape(shapes[0]["polygons"][0][0], (-1, 2))
    assert shapely.Polygon(ring).bounds == (10, 20, 500.2, 400)


def test_a_heat_tile_is_the_heatmap_there(server: ViewerServer) -> None:
    status, _, content = ask(
        server, below(server, "heat/0/percentile/11/0_0.png")
    )  # not the finest: there is none
    assert status in (200, 404)
    level = int(np.ceil(np.log2(max(TILES.size_level0))))
    status, _, content = ask(server, below(server, f"heat/0/percentile/{level}/1_0.png"))
    assert status == 200
    found = np.asarray(Image.open(io.BytesIO(content)))
    places = colours_of(scaled(TILES.layers[0], "percentile"))
    for i, (x, y) in enumerate(TILES.coords):
        if 512 <= x < 512 + found.shape[1] - 128 and y + 128 <= found.shape[0]:
            block = found[y : y + 128, x - 512 : x - 512 + 128]
            assert (block[..., :3] == places[i]).all()
            assert (block[..., 3] == 255).all()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "", "[::1]:80", "127.0.0.1.evil.example"],
)
def test_foreign_host_names_are_refused(server: ViewerServer, host: str) -> None:
    assert ask(server, below(server, ""), host=host)[0] == 403
    assert (
        ask(server, below(server, ""), host=f"{host}:{server.port}" if host == "evil.example" else host)[0]
        == 403
    )


def test_the_own_names_are_served(server: ViewerServer) -> None:
    for host in ("127.0.0.1", "localhost"):
        assert ask(server, below(server, ""), host=f"{host}:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/index.html", "/etc/passwd", "/../../etc/passwd", "//etc/passwd", "/wrong-token/", "/wrong-token/info.json"],
)  # fmt: skip
def test_without_the_token_there_is_nothing(server: ViewerServer, path: str) -> None:
    status, _, content = ask(server, path)
    assert status == 404
    assert b"root:" not in content


@pytest.mark.parametrize(
    "name",
    ["../../../../etc/passwd", "..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "....//etc/passwd",
     "assets/../server.py", "vendor/openseadragon.min.js", "index.html", "server.py", "slide/../0/0_0.jpg", "label.jpg", "macro.jpg",
     "slide/99/0_0.jpg", "slide/-1/0_0.jpg", "slide/9/9999_0.jpg", "slide/9/0_0.jpg/../../x", "heat/99/percentile/9/0_0.png", "heat/0/x/9/0_0.png",
     "slide/9/0_0.png", "slide/000000000000000000009/0_0.jpg", "slide/٩/0_0.jpg"],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(server: ViewerServer, name: str) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    request = (
        f"GET {below(server, name)} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(request.encode())
    answer = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.close()
    assert answer.split(b" ")[1] == b"404"
    assert b"root:" not in answer
    assert b"import" not in answer


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(server: ViewerServer, method: str) -> None:
    assert ask(server, below(server, ""), method=method)[0] == 501


def test_no_cache_no_frame_no_sniffing_no_cors(server: ViewerServer) -> None:
    for name in ("", "info.json", "slide/9/0_0.jpg", "nowhere"):
        headers = ask(server, below(server, name))[1]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_it_listens_on_the_loopback_alone(server: ViewerServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")


def test_a_taken_port_is_told(server: ViewerServer) -> None:
    with pytest.raises(InputError, match=f"Port {server.port} can't be used"):
        ViewerServer(server._pages, server.port)


def test_the_licence_lies_beside_the_library() -> None:
    folder = Path(__file__).parents[3] / "wsi_ncmi" / "reporting" / "viewer" / "assets" / "vendor"
    assert "Redistribution and use" in (folder / "openseadragon.LICENSE.txt").read_text()
    assert "OpenSeadragon 6.1.1" in (folder / "README.md").read_text()
    assert "openseadragon 6.1.1" in (folder / "openseadragon.min.js").read_text()[:200]
