"""The viewer over HTTP: what it serves is right, and it serves nothing else, to nobody else."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuclix.engine.batch.ledger import Ledger
from nuclix.engine.cli.main import main
from nuclix.engine.errors import UsageError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.open import open_slide
from nuclix.engine.viewer import server as viewer_server
from nuclix.engine.viewer.catalogue import SESSIONS_KEPT, Catalogue
from nuclix.engine.viewer.geometry import TILE, TilePyramid
from nuclix.engine.viewer.server import ViewerServer
from nuclix.engine.viewer.slide_session import OUTLINE_TILE, OUTLINE_UNITS
from sources import ROOT
from stored_folders import IMMUNE, RADIUS, STROMA, TUMOR, Nuclei, write_folder
from test_report import CHROMIUM, FLAGS, Page, browser

SHAPE = (900, 1200)
COUNT = 300
# The file of the release on the npm registry, less its comment that names the source map.
OPENSEADRAGON = "4e6fe442742db946dfbe1e748486552078e28ba617412e91b81146443465d2c4"


@dataclass
class Client:
    """Asks the server, with its secret unless told otherwise."""

    server: ViewerServer

    def get(
        self, path: str, method: str = "GET", raw: bool = False, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=30)
        with contextlib.closing(connection):
            target = path if raw else f"/{self.server.secret}/{path}"
            connection.request(method, target, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    def json(self, path: str) -> Any:
        status, content, _ = self.get(path)
        assert status == 200, content
        return json.loads(content)


@contextlib.contextmanager
def serving(out: Path, slides: Path | None = None) -> Iterator[Client]:
    catalogue = Catalogue(out, slides)
    server = ViewerServer(catalogue)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        catalogue.close()


NUCLEI = Nuclei.scattered(COUNT, SHAPE, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("viewer") / "out"
    write_folder(out, NUCLEI, (TUMOR, STROMA, IMMUNE))
    ledger = Ledger(out)
    ledger.enlist("broken", Path("broken.svs"), 3)
    ledger.begin("broken")
    ledger.fail("broken", "broken.svs: no slide")
    ledger.close()
    return out


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with serving(folder) as found:
        yield found


def number_of(client: Client, name: str = "slide") -> int:
    return next(line["number"] for line in client.json("slides")["slides"] if line["name"] == name)


def test_the_list_has_every_slide_and_what_became_of_it(client: Client) -> None:
    lines = {line["name"]: line for line in client.json("slides")["slides"]}
    assert lines["slide"]["nuclei"] == COUNT and lines["slide"]["state"] == "done"
    assert [item["name"] for item in lines["slide"]["classes"]] == ["Tumor", "Stroma", "<i>Immune & co</i>"]
    assert lines["broken"]["state"] == "failed" and lines["broken"]["error"] == "no slide"
    assert client.get(f"slide/{number_of(client, 'broken')}/facts")[0] == 404


def test_tiles_show_the_slide_at_every_level(client: Client, folder: Path) -> None:
    number = number_of(client)
    facts = client.json(f"slide/{number}/facts")
    assert (facts["width"], facts["height"], facts["mpp"], facts["problem"]) == (1200, 900, 0.5, "")
    assert facts["max_level"] == 11 and facts["tile"] == TILE
    reader = open_slide(folder.parent / "slide.svs")
    whole = reader.read(0, Box(0, 0, 900, 1200)).astype(float)
    reader.close()
    for level in range(facts["max_level"] + 1):
        step = 2 ** (facts["max_level"] - level)
        height, width = -(-900 // step), -(-1200 // step)
        for row in range(-(-height // TILE)):
            for col in range(-(-width // TILE)):
                status, content, headers = client.get(f"slide/{number}/tile/{level}/{col}/{row}")
                assert status == 200 and headers["Content-Type"] == "image/jpeg"
                tile = np.asarray(Image.open(io.BytesIO(content)), float)
                assert tile.shape == (min(TILE, height - row * TILE), min(TILE, width - col * TILE), 3)
                # The last row and column reach over the slide's edge, where there is white.
                rows, cols = (min(TILE, full // step - at * TILE) for full, at in ((900, row), (1200, col)))
                part = whole[row * TILE * step :, col * TILE * step :][: rows * step, : cols * step]
                if rows > 0 and cols > 0:
                    assert abs(tile[:rows, :cols].mean() - part.mean()) < 4, (level, col, row)
        assert client.get(f"slide/{number}/tile/{level}/{-(-width // TILE)}/0")[0] == 404
    assert client.get(f"slide/{number}/tile/{facts['max_level'] + 1}/0/0")[0] == 404


def test_every_nucleus_is_in_one_tile_of_outlines_where_it_lies(client: Client) -> None:
    number = number_of(client)
    found: dict[int, Any] = {}
    for row in range(-(-SHAPE[0] // OUTLINE_TILE)):
        for col in range(-(-SHAPE[1] // OUTLINE_TILE)):
            tile = client.json(f"slide/{number}/outlines/{col}/{row}")
            assert tile["left_out"] == 0
            for index, kind, score, rings in tile["nuclei"]:
                assert index not in found
                corners = np.array(rings[0]).reshape(-1, 2) / OUTLINE_UNITS + (col * OUTLINE_TILE, row * OUTLINE_TILE)
                found[index] = (kind, score, corners)
    assert sorted(found) == list(range(COUNT))
    for index, (kind, score, corners) in found.items():
        assert kind == NUCLEI.classes[index] and score == pytest.approx(NUCLEI.scores[index], abs=1e-3)
        middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
        np.testing.assert_allclose(middle[::-1], NUCLEI.middles[index], atol=1 / OUTLINE_UNITS)
        assert np.ptp(corners, axis=0) == pytest.approx((2 * RADIUS, 2 * RADIUS), abs=1 / OUTLINE_UNITS)


def test_a_nucleus_has_its_measurements(client: Client) -> None:
    number = number_of(client)
    nucleus = client.json(f"slide/{number}/nucleus/123")
    row, col = NUCLEI.middles[123]
    assert (nucleus["x"], nucleus["y"], nucleus["measurements"]["Area µm^2"]) == (col, row, 50.0)
    assert nucleus["class"] == (TUMOR, STROMA, IMMUNE)[NUCLEI.classes[123]].name
    for missing in (COUNT, 10**11):
        assert client.get(f"slide/{number}/nucleus/{missing}")[0] == 404


def test_the_density_map_has_the_colours_of_the_classes(client: Client) -> None:
    status, content, headers = client.get(f"slide/{number_of(client)}/density")
    assert status == 200 and float(headers["X-Nuclei-Per-Mm2"]) > 100
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape[2] == 4 and abs(pixels.shape[1] / pixels.shape[0] - 1200 / 900) < 0.1
    seen = {tuple(color) for color in pixels[pixels[..., 3] > 40][:, :3].tolist()}
    assert seen == {item.color for item in (TUMOR, STROMA, IMMUNE)}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8470", "127.0.0.1.evil.example", "", "10.0.0.1", "localhost.evil.example:1"]
)
def test_other_hosts_are_refused(client: Client, host: str) -> None:
    """A page elsewhere that rebinds its name to 127.0.0.1 sends that name."""
    status, content, _ = client.get("slides", Host=host)
    assert status == 421 and b"slide" not in content.replace(b"nuclix", b"")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:99"])
def test_this_machine_is_answered_through_any_port(client: Client, host: str) -> None:
    assert client.get("slides", Host=host)[0] == 200


@pytest.mark.parametrize("path", ["/", "/slides", "/wrong/", "/wrong/slides", "//slides", "/%00", ""])
def test_without_the_secret_nothing_is_served(client: Client, path: str) -> None:
    if path:
        assert client.get(path, raw=True)[0] == 403
    assert client.server.secret not in client.get("viewer.js")[1].decode()


@pytest.mark.parametrize("path", [
    "../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/pyproject.toml", "static/../index.html", "index.html",
    "slide/0/../../slides/x", "slide/-1/facts", "slide/99/facts", "slide/0/tile/1/1", "slide/0/tile/a/b/c",
    "slide/0/tile/-1/0/0", "slide/0/nucleus/1e3", "slide/%C2%B2/facts", "slide/0/facts/", "slide/0/__class__",
    "slide/slide/facts", "viewer.css/", "server.py", "%ff", "slide/0/tile/99999999999999999999/0/0", "slides/0",
])  # fmt: skip
def test_no_other_path_exists(client: Client, path: str) -> None:
    status, content, headers = client.get(path)
    assert status == 404 and b"root:" not in content
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(client: Client, method: str) -> None:
    assert client.get("slides", method)[0] == 501


def test_pages_are_confined_to_the_server(client: Client) -> None:
    status, content, headers = client.get("")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe-eval" not in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and "Access-Control-Allow-Origin" not in headers
    assert b"//" not in content.replace(b"<!DOCTYPE", b"")
    assert client.get("", "HEAD")[1] == b""
    for name in ("viewer.js", "outlines.js", "viewer.css", "openseadragon.min.js"):
        assert client.get(name)[0] == 200
        assert name in content.decode()


def test_it_listens_on_this_machine_alone(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    assert client.server.socket.getsockname()[0] == "127.0.0.1"


def test_many_requests_at_once(client: Client) -> None:
    number = number_of(client)
    paths = [f"slide/{number}/outlines/{n % 3}/{n % 2}" for n in range(30)]
    paths += [f"slide/{number}/tile/11/{n % 3}/{n % 2}" for n in range(30)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.get, paths * 2))
    assert {status for status, _, _ in answers} == {200}
    assert len({content for _, content, _ in answers}) == 12


def test_more_slides_than_stay_open_and_results_that_change(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = (300, 400)
    names = [f"s{index}" for index in range(SESSIONS_KEPT + 2)]
    for index, name in enumerate(names):
        write_folder(out, Nuclei.scattered(index, small), name=name, shape=small)
    with serving(out) as client:
        for _ in range(2):
            for index, name in enumerate(names):
                assert client.json(f"slide/{number_of(client, name)}/facts")["nuclei"] == index
        write_folder(out, Nuclei.scattered(77, small), name="s0", shape=small)
        assert client.json(f"slide/{number_of(client, 's0')}/facts")["nuclei"] == 77
        assert len(client.json(f"slide/{number_of(client, 's0')}/outlines/0/0")["nuclei"]) == 77


def test_a_slide_that_is_gone_is_explained_and_its_nuclei_shown(tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    slide = write_folder(out, Nuclei.scattered(5, (300, 400)), shape=(300, 400))
    moved.mkdir()
    slide.rename(moved / slide.name)
    with serving(out) as client:
        facts = client.json("slide/0/facts")
        assert "no such file" in facts["problem"] and facts["nuclei"] == 5
        assert client.get("slide/0/tile/0/0/0")[0] == 422
        assert len(client.json("slide/0/outlines/0/0")["nuclei"]) == 5
        assert client.get("slide/0/thumbnail")[2]["Content-Type"] == "image/jpeg"
    with serving(out, moved) as client:
        assert client.json("slide/0/facts")["problem"] == ""
        assert client.get("slide/0/tile/0/0/0")[0] == 200


def test_a_slide_without_a_pyramid_is_cut_from_its_thumbnail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclix.engine.viewer.slide_session.MAX_SOURCE_PX", TILE)
    out = tmp_path / "out"
    write_folder(out, Nuclei.scattered(5, SHAPE), shape=SHAPE)
    with serving(out) as client:
        facts = client.json("slide/0/facts")
        for level in range(facts["max_level"] + 1):
            status, content, _ = client.get(f"slide/0/tile/{level}/0/0")
            step = 2 ** (facts["max_level"] - level)
            size = min(TILE, -(-1200 // step)), min(TILE, -(-900 // step))
            assert status == 200 and Image.open(io.BytesIO(content)).size == size


@pytest.mark.parametrize("bounds", [Box(0, 0, 1, 1), Box(512, 1024, 3000, 5000), Box(0, 0, 512, 512)])
def test_tiles_cover_every_pixel_once(bounds: Box) -> None:
    pyramid = TilePyramid(bounds)
    assert pyramid.downsample(pyramid.max_level) == 1
    for level in range(pyramid.max_level + 1):
        step = pyramid.downsample(level)
        boxes = []
        for row in range(20):
            for col in range(20):
                box = pyramid.tile(level, col, row)
                boxes += [box] if box is not None else []
        assert sum(box.area for box in boxes) == -(-bounds.height // step) * -(-bounds.width // step)
    assert pyramid.tile(0, 0, 0) == Box(0, 0, 1, 1)
    assert pyramid.source(pyramid.max_level, Box(0, 0, 5, 5)) == Box(bounds.row, bounds.col, 5, 5)


def test_bad_usage_is_an_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path)]) == 2
    assert "no run has written here" in capsys.readouterr().err
    assert main(["view", str(folder), "--slides", str(tmp_path / "none")]) == 2
    with pytest.raises(SystemExit):
        main(["view", str(folder), "--port", "70000"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}"):
            ViewerServer(Catalogue(folder), port)


@browser
def test_in_a_browser_the_page_lists_slides_and_classes(client: Client, tmp_path: Path) -> None:
    flags = [*FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=20000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}", "--dump-dom", client.server.url]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    page = Page(dom)
    assert "300 nuclei" in page.text and "Stroma" in page.text and "no slide" in page.text
    assert "<i>Immune & co</i>" in page.text and "<title>slide " in dom
    assert page.tags["canvas"] >= 2, "the slide's and that of the outlines"
    assert 'id="message" role="status" hidden' in dom, "nothing to complain of"


def test_openseadragon_is_the_released_file() -> None:
    static = ROOT / "engine" / "viewer" / "static"
    assert hashlib.sha256((static / "openseadragon.min.js").read_bytes()).hexdigest() == OPENSEADRAGON
    licence = (static / "openseadragon-LICENSE.txt").read_text()
    assert "Redistribution and use" in licence
    served = {name for name, _ in viewer_server._FILES.values()}
    assert served | {"openseadragon-LICENSE.txt"} == {path.name for path in static.iterdir()}
