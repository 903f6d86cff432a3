"""Slides with something wrong in their bytes, the same ones for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

import tifffile
from PIL import Image

from end_to_end import blobs
from slides import write_slide

HEIGHT, WIDTH = 260, 230
HEAD = 1200  # bytes at either end, where headers and directories stand
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\0\1\0\0")


def make_bases(folder: Path) -> list[Path]:
    """Write one sound slide of every kind: pyramids in JPEG, deflate and raw, a BigTIFF, strips, PNG and JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    image = blobs(5, HEIGHT, WIDTH)
    bases = [
        write_slide(folder / f"{name}.svs", image, compression=name, downs=(1, 2))
        for name in ("jpeg", "deflate", "none")
    ]
    resolution = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(folder / "big.tif", image, bigtiff=True, tile=(64, 64), photometric="rgb", **resolution)
    tifffile.imwrite(folder / "strips.tif", image, rowsperstrip=32, photometric="rgb", compression="lzw", **resolution)
    Image.fromarray(image).save(folder / "plain.png")
    Image.fromarray(image).save(folder / "plain.jpg", quality=90)
    return [*bases, *(folder / name for name in ("big.tif", "strips.tif", "plain.png", "plain.jpg"))]


def mutated(content: bytes, pick: random.Random) -> tuple[str, bytes]:
    """Return the name of a mutation and what it makes of a file's bytes."""
    data = bytearray(content)
    kind = pick.choice(("tta", "tta in the head", "cut short", "header edits", "zeros", "bytes missing", "bytes added"))
    if kind == "cut short":
        return kind, bytes(data[: pick.randrange(len(data))])
    if kind.startswith("tta"):
        for _ in range(pick.choice((1, 1, 3, 30))):
            place = _in_head(len(data), pick) if kind.endswith("head") else pick.randrange(len(data))
            data[place] ^= 1 << pick.randrange(8)
    elif kind == "header edits":
        for _ in range(pick.choice((1, 1, 2, 5))):
            place = _in_head(len(data), pick) // 2 * 2
            data[place : place + 4] = pick.choice(EXTREMES)[: pick.choice((2, 4))]
    else:
        place, length = pick.randrange(len(data)), pick.choice((1, 4, 100, 3000))
        if kind == "zeros":
            data[place : place + length] = bytes(len(data[place : place + length]))
        elif kind == "bytes missing":
            del data[place : place + length]
        else:
            data[place:place] = pick.randbytes(length)
    return kind, bytes(data)


def _in_head(length: int, pick: random.Random) -> int:
    place = pick.randrange(min(2 * HEAD, length))
    return place if place < HEAD else max(0, length - 2 * HEAD + place)


def write_mutations(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write so many damaged slides; return what was done to each, by its file name."""
    pick = random.Random(seed)
    contents = {base: base.read_bytes() for base in make_bases(folder / "sound")}
    kinds = {}
    (folder / "damaged").mkdir()
    for number in range(count):
        base = pick.choice(list(contents))
        kind, data = mutated(contents[base], pick)
        name = f"{number:04d}-{base.stem}{base.suffix}"
        (folder / "damaged" / name).write_bytes(data)
        kinds[name] = kind
    return kinds
