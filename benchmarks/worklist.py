"""The viewer's worklist of many slides: times of the server and of the page in Chromium, pictures, axe.

    python benchmarks/worklist.py --slides 2000 --json [--pictures DIR] [--axe axe.min.js]

Answers are made up; every slide has a thumbnail, one in ten a verdict. Server: reading the folder, then the
first page, a search, another sort, and a verdict with the page after it (the table of verdicts is read anew),
each the median of 20 requests over HTTP. Page: from the address to the list being there, and from a key in
the search to the list being there. With --axe (of the npm package axe-core, MPL-2.0, which is no part of this
program) the violations on the list and on a slide's page are counted at both widths.

"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from wsi_ncmi.extraction import LedgerRow, write_ledger
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.ood import OodFlag
from wsi_ncmi.prediction.slide_prediction import SlidePrediction
from wsi_ncmi.prediction.worklist import Worklist
from wsi_ncmi.prediction.worklist_pages import WorklistPages
from wsi_ncmi.reporting.heatmaps import TileLayer, TileValues, write_tiles_geojson
from wsi_ncmi.reporting.viewer import ViewerServer
from wsi_ncmi.slides.record import SlideRecord, write_slides_csv
from wsi_ncmi.synthesis import write_pyramid

CLASSES = ("negative", "tumour")
SIDE, TILE = 4096, 256
WIDTHS = (390, 1280)
_EARLIER = {"name": "ncmi", "version": "1.4", "digest": "0" * 64}


def answers(count: int, seed: int) -> list[SlidePrediction]:
    """Most decided, some abstained from, flagged or failed."""
    rng = np.random.default_rng(seed)
    found = []
    for number, p in enumerate(rng.beta(6, 1, count)):
        name, kind = f"slide {number:04}", rng.random()
        if kind < 0.02:
            found.append(
                SlidePrediction(name, reason="it can't be opened as a slide (libtiff: bad directory)")
            )
            continue
        top = CLASSES[int(rng.random() < 0.3)]
        p = max(float(p), 1 - float(p))
        flags = (OodFlag("stain", "density 1.91, at most 1.42", 1.6),) if kind < 0.08 else ()
        reason = "its largest probability is below 0.700" if p < 0.7 else ""
        found.append(
            SlidePrediction(
                name, top, "abstain" if reason else top, {c: p if c == top else 1 - p for c in CLASSES}, p,
                dict.fromkeys(CLASSES, 0.01), 0.8, 900, flags, float(rng.gamma(2, 0.3)), reason,
                f"P{number // 3:04}", _EARLIER if number % 7 == 0 else {},
            )
        )  # fmt: skip
    return found


def write_job(folder: Path, found: list[SlidePrediction], model: str) -> None:
    """What ``predict`` leaves of them."""
    folder.mkdir()
    content = {
        "model": {"name": model, "digest": model.encode().hex().ljust(64, "0"), "classes": list(CLASSES)},
        "calibration": Calibration(slides=900, errors=40, supported=dict.fromkeys(CLASSES, 0.97)).to_json(),
        "slides": [each.to_json() for each in found],
    }
    (folder / "predictions.json").write_text(json.dumps(content))
    rows = [
        LedgerRow(
            each.slide_id, f"{each.slide_id}.svs", "done", "a fold of the tissue" * (number % 40 == 0), 900
        )
        for number, each in enumerate(found)
        if each.prediction
    ]
    write_ledger(rows, folder / "ledger.csv")


def draw(slides: Path, folders: list[Path], slide_id: str) -> None:
    """One slide, its thumbnail for all, and values of two models."""
    slides.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 90, (SIDE // 8, SIDE // 8, 3), np.uint8)
    y, x = np.mgrid[: SIDE // 8, : SIDE // 8] / (SIDE // 8) - 0.5
    tissue = (x**2 / 0.16 + y**2 / 0.09 < 1)[..., None]
    small = np.where(tissue, np.array([150, 80, 150], np.uint8) + noise, 244).astype(np.uint8)
    picture = Image.fromarray(small).filter(ImageFilter.GaussianBlur(2))
    write_pyramid(slides / f"{slide_id}.svs", np.asarray(picture.resize((SIDE, SIDE))), 0.5)
    coords = np.argwhere(np.ones((SIDE // TILE, SIDE // TILE)))[:, ::-1].astype(np.int64) * TILE
    middle = (coords + TILE / 2) / SIDE - 0.5
    coords = coords[middle[:, 0] ** 2 / 0.16 + middle[:, 1] ** 2 / 0.09 < 1]
    record = SlideRecord(
        slide_id, f"{slide_id}.svs", "openslide", "aperio", SIDE, SIDE, 1, 0.5, 0.5, "slide", "f", 1
    )
    write_slides_csv([record], folders[0] / "slides.csv")
    (folders[0] / "thumbnails").mkdir()
    picture.resize((384, 384)).save(folders[0] / "thumbnails" / f"{slide_id}.jpg")
    for folder in folders:
        share = rng.dirichlet(np.full(len(coords), 0.5)).astype(np.float32)
        layers = (
            TileLayer("attention", share, "attention"),
            TileLayer("evidence tumour", share / share.max(), "evidence"),
        )
        tiles = TileValues(slide_id, coords, (float(TILE), float(TILE)), (SIDE, SIDE), layers)
        (folder / "attention").mkdir()
        write_tiles_geojson(folder / "attention" / f"{slide_id}.geojson", tiles, coloured_by="attention")


def milliseconds(act: Callable[[], Any], repeats: int = 20) -> float:
    """Median time of a call."""
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        spent.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(spent), 1)


def ask(url: str, content: dict[str, str] | None = None) -> Any:
    """One request of the page; with content a POST."""
    headers = {}
    if content is not None:
        base = "/".join(url.split("/")[:4]) + "/"
        headers = {"Content-Type": "application/json", "Origin": "/".join(url.split("/")[:3])}
        headers["X-Page-Token"] = ask(base + "page_token.json")
    data = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as reply:
        return json.load(reply)


def server_times(url: str, found: list[SlidePrediction], digest: str) -> dict[str, float]:
    """Each kind of request."""
    judged = iter([each for each in found if each.prediction] * 2)

    def judge() -> None:
        each = next(judged)
        content = {"verdict": "agree", "initials": "AB", "prediction": each.prediction}
        content["digest"] = each.model.get("digest", digest)
        ask(f"{url}slides/{each.slide_id.replace(' ', '%20')}/verdict", content)
        ask(f"{url}rows.json")

    return {
        "first page": milliseconds(lambda: ask(f"{url}rows.json")),
        "search": milliseconds(lambda: ask(f"{url}rows.json?search=p01+tumour")),
        "sort": milliseconds(lambda: ask(f"{url}rows.json?sort=probability&order=down&page=20")),
        "page of a slide": milliseconds(lambda: ask(f"{url}slides/slide%201000/case.json")),
        "verdict, then the list": milliseconds(judge),
    }


def browser(url: str, slide: str, pictures: Path | None, axe: Path | None) -> dict[str, Any]:
    """Times, violations and pictures of the pages."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {"list": [], "search": []}
    violations: dict[str, list[str]] = {}
    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in WIDTHS:
            # axe is no part of the page, so its policy must not apply to it.
            page = chromium.new_page(viewport={"width": width, "height": 844}, bypass_csp=axe is not None)
            for name, address in (("list", url), ("slide", f"{url}slides/{slide.replace(' ', '%20')}/")):
                started = time.perf_counter()
                page.goto(address)
                page.wait_for_selector("body[data-ready]")
                if name == "list":
                    times["list"].append(time.perf_counter() - started)
                page.wait_for_timeout(1500)
                if pictures is not None:
                    page.screenshot(
                        path=pictures / f"{name}_{width}.png", full_page=name == "list" and width < 500
                    )
                if axe is not None:
                    page.add_script_tag(path=axe)
                    result = page.evaluate("axe.run()")
                    violations[f"{name} at {width} px"] = [
                        f"{each['id']}: {node['target']}"
                        for each in result["violations"]
                        for node in each["nodes"]
                    ]
                if name == "list":
                    ready = page.get_attribute("body", "data-ready")
                    started = time.perf_counter()
                    page.locator("#search").press("7")
                    page.wait_for_function("before => document.body.dataset.ready !== before", arg=ready)
                    times["search"].append(time.perf_counter() - started)
            page.close()
        chromium.close()
    return {
        **{f"{name}, ms": [round(1000 * each) for each in spent] for name, spent in times.items()},
        **({"violations": violations} if axe else {}),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slides", type=int, default=2000)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--axe", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        first, second, slides = (Path(temporary) / name for name in ("first", "second", "slides"))
        found = answers(given.slides, 0)
        write_job(first, found, "ncmi")
        write_job(second, answers(given.slides, 1), "ce")
        slide = next(each.slide_id for each in found if each.decision == "abstain")
        draw(slides, [first, second], slide)
        for each in found:
            if each.slide_id != slide:
                (first / "thumbnails" / f"{each.slide_id}.jpg").hardlink_to(
                    first / "thumbnails" / f"{slide}.jpg"
                )
        reading = milliseconds(lambda: Worklist(first, first, second), 3)
        worklist = Worklist(first, first, second)
        with ViewerServer(WorklistPages(worklist, slides)) as server:
            server.start()
            result = {
                "slides": given.slides,
                "reading the folder, ms": reading,
                "server, ms": server_times(server.url, found, worklist.answers.digest),
                "page": browser(server.url, slide, given.pictures, given.axe),
            }
    print(json.dumps(result, indent=None if given.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
