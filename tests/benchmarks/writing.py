"""Write made-up nuclei in every format: bytes, speed and peak memory, and json.dump and geojson.dump.

Run it as ``python tests/benchmarks/writing.py NUCLEI [FORMAT ...]``; each format is a process of its own.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nuclix.engine.contracts import ObjectClass, SlideHeader
from nuclix.engine.geometry import Box
from nuclix.engine.segmentation.measure import objects_of
from nuclix.engine.segmentation.objects import Objects, canonical_order, take
from nuclix.engine.segmentation.outputs import load_writers, write_outputs
from nuclix.engine.segmentation.store import ObjectStore, StoredSlide, StoreWriter

FORMATS = ("geojson", "geojson-zip", "geojson.gz", "csv", "parquet", "labels")
PITCH = 48  # px between nuclei, at 0.25 um/px: about as dense as in a lymph node
SHAPES = 2000
PEER_OBJECTS = 20_000
REPEATS = 3


def shapes() -> Objects:
    """Return ellipses of 8 to 20 px in every direction, with all measurements."""
    rng = np.random.default_rng(0)
    columns = 50
    labels = np.zeros((SHAPES // columns * PITCH, columns * PITCH), np.int32)
    rows, cols = np.indices((PITCH, PITCH)) - PITCH / 2
    for number in range(SHAPES):
        a, b, angle = *rng.uniform(8, 20, 2), rng.uniform(0, np.pi)
        u, v = rows * np.cos(angle) + cols * np.sin(angle), cols * np.cos(angle) - rows * np.sin(angle)
        row, col = number // columns * PITCH, number % columns * PITCH
        labels[row : row + PITCH, col : col + PITCH][(u / a) ** 2 + (v / b) ** 2 < 1] = number + 1
    return objects_of(labels, rng.random(labels.shape, np.float32), Box(0, 0, *labels.shape), 0.25)


def made_up(count: int) -> Iterator[Objects]:
    """Yield nuclei of a square slide in canonical order."""
    some = shapes()
    corner = some.first // PITCH * PITCH
    edge = int(np.ceil(count**0.5))
    place = np.stack(np.divmod(np.arange(count), edge), axis=1) * PITCH
    order = canonical_order(place)
    rng = np.random.default_rng(1)
    for start in range(0, count, PEER_OBJECTS):
        spots = place[order[start : start + PEER_OBJECTS]]
        index = rng.integers(0, len(some), len(spots))
        part = take(some, index)
        shift = spots - corner[index]
        moved = part.corners + np.repeat(shift, np.diff(part.offsets[part.rings]), axis=0)
        for column in part.measurements.values():
            np.multiply(column, rng.uniform(0.999, 1.001, len(column)), out=column)
        yield Objects(
            first=part.first + shift,
            pixels=part.pixels,
            rings=part.rings,
            shells=part.shells,
            offsets=part.offsets,
            corners=moved.astype(part.corners.dtype),
            classes=part.classes,
            measurements=part.measurements,
        )


def store(path: Path, count: int) -> float:
    """Store made-up nuclei; return the seconds of storing alone."""
    edge = int(np.ceil(count**0.5)) * PITCH
    header = SlideHeader(
        "made-up.svs", 1.0, (0.0, 0.0), (ObjectClass("Nucleus", (200, 0, 0)),), "n", (edge, edge), 0.25
    )
    writer, spent = StoreWriter(path), 0.0
    for objects in made_up(count):
        started = time.perf_counter()
        writer.write(objects)
        spent += time.perf_counter() - started
    started = time.perf_counter()
    writer.commit(StoredSlide("key", header, {}), None)
    return spent + time.perf_counter() - started


def write(path: Path, name: str, target: Path) -> dict[str, Any]:
    """Write one format from stored nuclei."""
    writers = load_writers((name,))
    with ObjectStore(path) as objects:
        started, cpu = time.perf_counter(), time.process_time()
        write_outputs(objects, {name: target}, writers, annotations=False, on_block=lambda: None)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        count = len(objects)
    megabytes = target.stat().st_size / 1e6
    # Of this program alone: what `getrusage` gives includes the process that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {
        "format": name,
        "objects": count,
        "MB": round(megabytes, 1),
        "s": round(seconds, 2),
        "CPU s": round(cpu, 2),
        "objects per CPU s": round(count / cpu),
        "MB per CPU s": round(megabytes / cpu, 1),
        "peak MB": round(peak),
    }


def peers(path: Path, folder: Path) -> dict[str, float]:
    """Return how much longer json.dump and geojson.dump take for the first block than nuclix; the best of several."""
    import geojson

    from nuclix.plugins.writers.geojson import GeoJSONWriter

    with ObjectStore(path) as stored:
        header, objects = stored.slide.header, next(stored.blocks())

    def own() -> None:
        session = GeoJSONWriter().open(folder / "own.geojson", header)
        session.write(objects)
        session.commit()

    own()
    text = (folder / "own.geojson").read_text()
    plain, typed = json.loads(text), geojson.loads(text)
    tasks = {
        "nuclix": own,
        "json": lambda: json.dump(plain, io.StringIO()),
        "geojson": lambda: geojson.dump(typed, io.StringIO()),
    }
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(REPEATS):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            best[name] = min(best[name], time.perf_counter() - started)
    return {f"{name}.dump / nuclix": round(best[name] / best["nuclix"], 1) for name in ("json", "geojson")}


def check_zip(path: Path) -> dict[str, int]:
    """Read every entry of a zip with geojson and shapely; return what is wrong and how much there is."""
    import geojson
    import shapely

    entries = features = invalid = 0
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            collection = geojson.loads(archive.read(name))
            geometries = shapely.from_geojson([json.dumps(item["geometry"]) for item in collection["features"]])
            rounded = shapely.transform(geometries, lambda xy: xy.astype(np.float32).astype(np.float64))
            entries += 1
            features += len(geometries)
            invalid += int((~shapely.is_valid(geometries)).sum() + (~shapely.is_valid(rounded)).sum())
    return {"entries": entries, "objects": features, "invalid": invalid}


def _say(result: object) -> None:
    sys.stdout.write(f"{result}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure what the command line asks for."""
    if sys.argv[1] == "--one":
        sys.stdout.write(json.dumps(write(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))) + "\n")
        return
    count, formats = int(sys.argv[1]), sys.argv[2:] or FORMATS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.npz"
        seconds = store(path, count)
        _say(f"stored: {seconds:.1f} s, {path.stat().st_size / 1e6:.0f} MB")
        for name in formats:
            target = Path(folder) / f"result.{name}"
            subprocess.run([sys.executable, __file__, "--one", path, name, target], check=True)
            if name == "geojson-zip":
                _say(check_zip(target))
            target.unlink()
        _say(peers(path, Path(folder)))


if __name__ == "__main__":
    main()
