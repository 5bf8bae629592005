"""Runs the reverse proxies of docs/how-to/worklist.md before a viewer, with TLS and login; by hand, never by pytest.

    python tests/containers/proxies.py WORK [nginx caddy]

Root, with nginx, caddy, openssl, chromium and playwright; port 443 has to be free. The blocks of the page are
used as they stand but for the token, the folders of the certificate and the hash of the password. Exit code 1
when anything does not hold.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from engine import demand  # noqa: E402

from tests.prediction.answers import write_answers, write_slide  # noqa: E402

HOST, TOKEN, PASSWORD = "slides.example", secrets.token_hex(20), "a long password"
LOGIN = "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()


def block(language: str, start: str) -> str:
    """The configuration on the page."""
    page = (ROOT / "docs" / "how-to" / "worklist.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return next(text for text in blocks if text.startswith(start)).replace("TOKEN", TOKEN)


def nginx(work: Path) -> list[str]:
    """Command that serves the page's example."""
    said = subprocess.run(
        ["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True
    )
    (work / "slides.users").write_text(f"reader:{said.stdout}")
    server = block("nginx", "server").replace("/etc/ssl/", f"{work}/").replace("/etc/nginx/", f"{work}/")
    (work / "nginx.conf").write_text(
        f"user root; pid {work}/nginx.pid; error_log {work}/nginx.log;\nevents {{}}\n"
        f"http {{ access_log off;\n{server}}}\n"
    )
    return ["nginx", "-c", str(work / "nginx.conf"), "-g", "daemon off;"]


def caddy(work: Path) -> list[str]:
    """Command that serves the page's example."""
    said = subprocess.run(
        ["caddy", "hash-password", "--plaintext", PASSWORD], capture_output=True, text=True, check=True
    )
    site = block("text", "slides").replace("/etc/ssl/", f"{work}/").replace("$2a$14$…", said.stdout.strip())
    (work / "Caddyfile").write_text(site)
    os.environ |= {"XDG_DATA_HOME": str(work), "XDG_CONFIG_HOME": str(work)}
    return ["caddy", "run", "--config", str(work / "Caddyfile"), "--adapter", "caddyfile"]


@contextmanager
def running(command: list[str], ready: tuple[str, int]) -> Iterator[None]:
    """A server, once it takes connections."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        for _ in range(300):
            try:
                http.client.HTTPConnection(*ready, timeout=5).connect()
                break
            except OSError:
                demand(process.poll() is None, f"{command[0]} ended")
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def ask(work: Path, path: str, content: Mapping[str, str] | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and content of one request over TLS."""
    context = ssl.create_default_context(cafile=work / "slides.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", 443, timeout=30, context=context)
    wrap = context.wrap_socket
    context.wrap_socket = lambda sock, **_: wrap(sock, server_hostname=HOST)  # type: ignore[method-assign]
    given = {"Host": HOST, "Authorization": LOGIN, **{key.replace("_", "-"): v for key, v in headers.items()}}
    if content is None:
        connection.request("GET", path, headers=given)
    else:
        body = json.dumps(content)
        connection.request("POST", path, body, {"Content-Type": "application/json", **given})
    with connection.getresponse() as reply:
        return reply.status, reply.read()


def requests(work: Path, predictions: Path) -> str:
    """What a page, a person without login, and a page elsewhere get."""
    demand(ask(work, "/", Authorization="")[0] == 401, "no login was asked for")
    status, page = ask(work, "/")
    demand(status == 200 and b"worklist.js" in page, f"no list: {status}")
    rows = json.loads(ask(work, "/rows.json")[1])
    demand(rows["total"] == 5, f"not five slides: {rows}")
    digest = json.loads(ask(work, "/slides/a%20sound/case.json")[1])["digest"]
    verdict = {"verdict": "agree", "initials": "AB", "prediction": "tumour", "digest": digest}
    token = json.loads(ask(work, "/page_token.json")[1])
    own = f"https://{HOST}"
    where = "/slides/a%20sound/verdict"
    refused: list[tuple[str, dict[str, Any]]] = [
        ("a foreign origin", {"Origin": "https://evil.example", "X_Page_Token": token}),
        ("no origin", {"X_Page_Token": token}),
        ("no token", {"Origin": own}),
        ("a false token", {"Origin": own, "X_Page_Token": "0" * len(token)}),
        ("another name", {"Origin": own, "X_Page_Token": token, "Host": "evil.example"}),
    ]
    for what, headers in refused:
        status, said = ask(work, where, verdict, **headers)
        # Caddy itself says nothing to a name that it doesn't serve, with 200.
        demand(status in (400, 403, 404, 421) or not said, f"{what} was not refused: {status}")
    demand(not (predictions / "verdicts.csv").exists(), "a refused verdict was stored")
    status, said = ask(work, where, verdict, Origin=own, X_Page_Token=token)
    demand(status == 200, f"a verdict was refused: {status} {said!r}")
    demand(digest in (predictions / "verdicts.csv").read_text(), "the verdict is not in the table")
    status, _ = ask(work, where, {**verdict, "comment": "x" * 3_000_000}, Origin=own, X_Page_Token=token)
    demand(status >= 400, "three megabytes of comment were taken")
    return f"{len(refused)} kinds of requests refused, a verdict stored"


def browser(predictions: Path) -> str:
    """A verdict by keyboard alone."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playing:
        arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
        chromium = playing.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        context = chromium.new_context(
            ignore_https_errors=True, http_credentials={"username": "reader", "password": PASSWORD}
        )
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(f"https://{HOST}/")
        page.wait_for_selector("body[data-ready]")
        page.locator("#search").focus()
        page.keyboard.type("flagged")
        expect(page.locator("#rows tr")).to_have_count(1)
        for key in ("Enter", "Enter"):
            page.keyboard.press(key)
        page.wait_for_url("**/slides/**")
        expect(page.locator("input[type=radio]").first).to_be_focused()
        page.keyboard.press("Space")
        for _ in range(3):  # comment, initials
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "initials":
                break
        page.keyboard.type("CD")
        page.keyboard.press("Control+Enter")
        page.screenshot(path=predictions / "slide.png")
        page.wait_for_timeout(1500)
        chromium.close()
    rows = (predictions / "verdicts.csv").read_text()
    demand("b flagged" in rows and ",CD," in rows, f"no verdict by keyboard: {rows}")
    wrong = [text for text in wrong if "404" not in text]  # thumbnails of slides that have none
    demand(not wrong, f"the console says {wrong[:3]}")
    return "a verdict by keyboard"


def main() -> None:
    """Runs them."""
    work = Path(sys.argv[1]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}",
            "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", work / "slides.key", "-out", work / "slides.pem",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    os.environ["WSI_NCMI_VIEW_TOKEN"] = TOKEN
    for name in sys.argv[2:] or ["nginx", "caddy"]:
        predictions = work / f"predictions-{name}"
        shutil.rmtree(predictions, ignore_errors=True)
        write_answers(predictions)
        write_slide(work / "slides", predictions, "b flagged")
        viewer = [
            sys.executable, "-m", "wsi_ncmi", "view", str(predictions), "--port", "8000", "--origin",
            f"https://{HOST}", "--slides", str(work / "slides"), "--no-browser",
        ]  # fmt: skip
        proxy = {"nginx": nginx, "caddy": caddy}[name](work)
        with running(viewer, ("127.0.0.1", 8000)), running(proxy, ("127.0.0.1", 443)):
            print(f"ok   {name}: {requests(work, predictions)}; {browser(predictions)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"FAIL {error}")
        sys.exit(1)
