"""What end-to-end tests need: small slides, a small model, plugins that fail on demand, and who watches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from nuclix.engine.batch import events
from nuclix.engine.batch.events import RunEvent
from nuclix.engine.cli.main import main
from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.geometry import Scale
from nuclix.engine.inference.model_file import save_model
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.hooks import Progress
from slides import write_slide

PATCH = PatchShape(64, 16, 16)
BLOCK = 96
LONG = 300.0  # seconds in which a machine under heavy load gets there, too; what takes longer hangs

# A reader that does what a slide's name says, once row 150 is read: segv-once.tif, raise-always.tif, ...
FAULTS = """
import os, signal, time
from pathlib import Path
from nuclix.plugins.readers.tiffslide import TiffSlideReader

class FaultyReader(TiffSlideReader):
    priority = 10

    @classmethod
    def recognises(cls, path):
        return path.stem.endswith(("-once", "-always")) and TiffSlideReader.recognises(path)

    def read(self, level, box):
        path = self.info.path
        if level == 0 and box.row > 150:
            how, when = path.stem.split("-")
            marker = path.with_suffix(".happened")
            if when == "always" or not marker.exists():
                marker.touch()
                FAULTS[how]()
        return super().read(level, box)

def hang():
    time.sleep(3600)

def memory():
    raise MemoryError("no room for 7 GB")

def broken():
    raise ZeroDivisionError("broken plugin")

FAULTS = {
    "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "oom": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "slow": lambda: time.sleep(0.04), "hang": hang, "memory": memory, "raise": broken,
}
"""


def install_faults(folder: Path) -> Path:
    """Put the distribution of the faulty reader into a folder, which then goes on the path."""
    info = folder / "faults-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "faults.py").write_text(FAULTS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faults\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nuclix.readers]\nfaulty = faults:FaultyReader\n")
    return folder


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """Return dark discs of all sizes on background, some of them touching, as (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    depth = np.zeros((height, width), np.float32)
    for _ in range(height * width // 700):
        row, col, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 13)
        box = np.s_[max(0, int(row - 14)) : int(row + 15), max(0, int(col - 14)) : int(col + 15)]
        depth[box] = np.maximum(depth[box], 1 - np.hypot(rows[box] - row, cols[box] - col) / radius)
    red = 250 - np.clip(240 * depth + rng.uniform(0, 3, depth.shape) * (depth > 0), 0, 245)
    return np.stack([red, 0.9 * red, red], axis=2).astype(np.uint8)


def make_slide(path: Path, seed: int = 0, height: int = 420, width: int = 380, *, mpp: float | None = 0.25) -> Path:
    """Write a slide of blobs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_slide(path, blobs(seed, height, width), mpp=mpp, compression="none")


def make_model(path: Path, threshold: float = 1.0) -> Path:
    """Write a model whose map is (255 - red) / 16: its results are those of the pixels, fast."""
    import torch

    class Red(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (255 - images[:, :1].float()) / 16

    card = ModelCard(
        name="red",
        method="test",
        scale=Scale(0.25),
        patch=PATCH,
        maps=("distance",),
        postprocessor="dist",
        parameters={"p1": 0.5, "p2": threshold},
        classes=(ObjectClass("Nucleus", (200, 0, 0)),),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of TorchScript
        save_model(path, Red(), card)
    return path


def config_for(out: Path, model: Path, *inputs: object) -> RunConfig:
    """Return the configuration of a run over small slides: several rows of blocks, one thread."""
    return RunConfig(
        inputs=tuple(map(str, inputs)), out=str(out), model=str(model), device="cpu", block=BLOCK, threads=1
    )


class RecordingObserver:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.plan: Mapping[str, Any] = {}
        self.events: list[tuple[str, str]] = []
        self.notices: list[str] = []
        self.failures: dict[str, str] = {}
        self.progress: list[tuple[str, Progress]] = []
        self.on_progress: Callable[[], None] = lambda: None

    def __call__(self, event: RunEvent) -> None:
        kind = event.kind.removeprefix("slide_")
        if event.kind == events.RUN_STARTED:
            self.plan = event.facts
        elif event.kind == events.NOTICE:
            self.notices.append(event.facts["message"])
        elif kind == "progress":
            self.progress.append((event.slide, Progress(**event.facts)))
            self.on_progress()
        else:
            self.events.append((kind, event.slide))
            if kind == "failed":
                self.failures[event.slide] = event.facts["error"]

    def names(self, kind: str) -> list[str]:
        return [name for event, name in self.events if event == kind]


def results(out: Path) -> dict[str, str]:
    """Return the hash of every result in an output folder, by name."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.geojson"))
    }


def leftovers(out: Path) -> list[str]:
    """Return what a finished run must not leave behind: checkpoints, temporary files, the lock."""
    return [path.name for path in out.rglob(".*") if path.name != ".nuclix" and ".nuclix" not in path.parts[-2:-1]]


def nuclix(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "nuclix.engine.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )


@dataclass(frozen=True)
class Finished:
    """The end of a command: exit code, stdout and stderr."""

    code: int
    said: str
    errors: str


def nuclix_here(*arguments: object) -> Finished:
    """Run the command line in this process, for tests that are not about processes: PyTorch is loaded already."""
    said, errors = StringIO(), StringIO()
    with redirect_stdout(said), redirect_stderr(errors):
        code = main(list(map(str, arguments)))
    return Finished(code, said.getvalue(), errors.getvalue())


def run_options(out: Path, model: Path, *, block: int = BLOCK) -> list[object]:
    """Return the options that go with `config_for`."""
    return ["--out", out, "--model", model, "--block", block, "--device", "cpu", "--threads", 1]


def wait_until(condition: Callable[[], bool], seconds: float = LONG) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def children_of(pid: int) -> Iterator[int]:
    """Yield the living descendants of a process."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield int(child)
            yield from children_of(int(child))


def is_worker(pid: int) -> bool:
    """Return whether a process is a worker, by its command line."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
