"""Make the pictures of the README and the gallery: from a synthetic slide, with the Python API.

    python docs/scripts/make_pictures.py docs/images

Needs the extra ``plots``. With a Chromium on the path it also makes pictures of the run report, a slide's page and the
viewer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclix.engine import Nuclei, load_model, segment
from nuclix.engine.batch.layout import slide_page_path
from nuclix.engine.cli.main import main
from nuclix.engine.slide.synthetic import make_synthetic_slide
from nuclix.engine.viewer.catalogue import Catalogue
from nuclix.engine.viewer.server import ViewerServer

if TYPE_CHECKING:
    from PIL.Image import Image

EDGE, SEED = 2048, 3
REGION = (960, 760, 360, 220)  # x, y, width, height: gland and stroma
ENLARGED = 2
COLORS = 128  # of a palette: a picture of tissue then takes a third of the bytes
REPORT_SIZE, PAGE_SIZE, VIEWER_SIZE = "1200,1500", "1200,1750", "1200,760"
VIEWED = (1000, 900, 1.0)  # x and y in the middle of the viewer's picture, and screen pixels per pixel
SETTLE_MS = 20_000  # time that a page has to load


def pictures(out: Path, work: Path) -> None:
    """Make all pictures."""
    slide = make_synthetic_slide(work / "synthetic.tif", EDGE, SEED).path
    nuclei = segment(slide, load_model("dist-kumar16", device="cpu"))
    side_by_side(slide, nuclei).save(out / "outlines.png", optimize=True)
    shrunk(nuclei.plot(slide, edge=480)).save(out / "slide.png", optimize=True)
    labels(nuclei).save(out / "labels.png", optimize=True)
    histogram(nuclei, out / "areas.svg")
    pages(slide, work, out)


def enlarged(picture: Image) -> Image:
    """Enlarge a picture so that pixels of the outline can be told apart."""
    from PIL import Image

    return picture.resize((picture.width * ENLARGED, picture.height * ENLARGED), Image.Resampling.NEAREST)


def shrunk(picture: Image) -> Image:
    """Reduce a picture to a palette."""
    return picture.quantize(COLORS)


def side_by_side(slide: Path, nuclei: Nuclei) -> Image:
    """Return the tissue, and the tissue with outlines."""
    from PIL import Image

    tissue, outlined = enlarged(nuclei[[]].plot(slide, REGION)), enlarged(nuclei.plot(slide, REGION))
    both = Image.new("RGB", (2 * tissue.width + 8, tissue.height), "white")
    both.paste(tissue, (0, 0))
    both.paste(outlined, (tissue.width + 8, 0))
    return shrunk(both)


def labels(nuclei: Nuclei) -> Image:
    """Return the label image of the region in random colours."""
    from PIL import Image

    x, y, width, height = REGION
    image = nuclei.labels((height, width), corner=(y, x))
    palette = np.random.default_rng(0).integers(60, 255, (len(nuclei) + 1, 3), dtype=np.uint8)
    palette[0] = 0
    return shrunk(enlarged(Image.fromarray(palette[image])))


def histogram(nuclei: Nuclei, path: Path) -> None:
    """Draw the distribution of nuclear area."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "nuclix"  # else the file's ids differ from run to run
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.hist(nuclei.measurements["Area µm^2"], bins=40, color="#7a4b94")
    axes.set(xlabel="nuclear area (µm²)", ylabel="nuclei", title=f"{len(nuclei):,} nuclei of a synthetic slide")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def pages(slide: Path, work: Path, out: Path) -> None:
    """Run the command line and photograph report, slide page and viewer, where there is a browser."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    browser = next(filter(None, found), None)
    if browser is None or main(["run", str(slide), "--out", str(work / "out"), "--device", "cpu", "--quiet"]):
        return
    photograph(browser, (work / "out" / "report.html").as_uri(), REPORT_SIZE, out / "report.png")
    page = slide_page_path(work / "out" / "report.html", slide.stem)
    photograph(browser, page.as_uri(), PAGE_SIZE, out / "slide-page.png")
    with closing(Catalogue(work / "out")) as catalogue, closing_server(ViewerServer(catalogue)) as server:
        place = f"#slide={slide.stem}&x={VIEWED[0]}&y={VIEWED[1]}&scale={VIEWED[2]}"
        photograph(browser, server.url + place, VIEWER_SIZE, out / "viewer.png")


@contextmanager
def closing_server(server: ViewerServer) -> Iterator[ViewerServer]:
    """Serve until the end of the block."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def photograph(browser: str, address: str, size: str, path: Path) -> None:
    """Save what a browser shows, reduced."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}"]
        options += [f"--user-data-dir={folder}/profile", f"--virtual-time-budget={SETTLE_MS}"]
        command = [browser, *options, f"--screenshot={shot}", address]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with Image.open(shot) as picture:
            small = picture.convert("RGB").resize((picture.width * 2 // 3, picture.height * 2 // 3))
            shrunk(small).save(path, optimize=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pictures(target, Path(folder))
