"""Make the pictures of the README and the gallery: from a synthetic slide, with the Python API.

    python docs/scripts/make_pictures.py docs/images

Needs the extra ``plots``. With a Chromium on the path it also makes a picture of the run report.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nuclix.engine import Nuclei, load_model, segment
from nuclix.engine.cli.main import main
from nuclix.engine.slide.synthetic import make_synthetic_slide

if TYPE_CHECKING:
    from PIL.Image import Image

EDGE, SEED = 2048, 3
REGION = (960, 760, 360, 220)  # x, y, width, height: gland and stroma
ENLARGED = 2
COLORS = 128  # of a palette: a picture of tissue then takes a third of the bytes
REPORT_SIZE = "1200,1500"


def pictures(out: Path, work: Path) -> None:
    """Make all pictures."""
    slide = make_synthetic_slide(work / "synthetic.tif", EDGE, SEED).path
    nuclei = segment(slide, load_model("dist-kumar16", device="cpu"))
    side_by_side(slide, nuclei).save(out / "outlines.png", optimize=True)
    shrunk(nuclei.plot(slide, edge=480)).save(out / "slide.png", optimize=True)
    labels(nuclei).save(out / "labels.png", optimize=True)
    histogram(nuclei, out / "areas.svg")
    report(slide, work, out / "report.png")


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


def report(slide: Path, work: Path, path: Path) -> None:
    """Run the command line and photograph its report, where there is a browser."""
    from PIL import Image

    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None or main(["run", str(slide), "--out", str(work / "out"), "--device", "cpu", "--quiet"]):
        return
    shot = work / "report.png"
    page = (work / "out" / "report.html").as_uri()
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={REPORT_SIZE}"]
    subprocess.run([browser, *options, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=300)
    with Image.open(shot) as picture:
        small = picture.convert("RGB").resize((picture.width * 2 // 3, picture.height * 2 // 3))
        shrunk(small).save(path, optimize=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pictures(target, Path(folder))
