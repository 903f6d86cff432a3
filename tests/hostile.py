"""Files that somebody made to break a reader, or that a broken writer left behind; each small on disk."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from slides import aperio_description, noise_image, smooth_image, write_slide

KINDS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q"}
BOMB = 1 << 28  # bytes that a decompressor would make of a few hundred kilobytes
HUGE = 10**6
OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'


def set_tag(path: Path, name: str, value: int, page: int = 0, part: str = "value") -> None:
    """Overwrite a tag's first value, its count or its type in place."""
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[page].tags[name]  # type: ignore[union-attr]
        order = tiff.byteorder
        place = {"value": tag.valueoffset, "count": tag.offset + 4, "type": tag.offset + 2}[part]
        code = {"value": KINDS[int(tag.dtype)][0], "count": "I", "type": "H"}[part]
    limit = (1 << 8 * struct.calcsize(code)) - 1
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(struct.pack(order + code, min(value, limit)))


def plain(path: Path, **options: Any) -> Path:
    """Write a TIFF of 4 x 4 tiles."""
    settings = {"photometric": "rgb", "tile": (64, 64), "metadata": None, **options}
    tifffile.imwrite(path, noise_image(256, 256), **settings)
    return path


def tags_that_lie(folder: Path) -> Iterator[Path]:
    """Yield TIFFs in which one number is not what it should be."""
    lies = {
        "ImageWidth": (0, 1, HUGE, 2**31, 2**32 - 1),
        "ImageLength": (0, 1, HUGE, 2**31, 2**32 - 1),
        "TileWidth": (0, 1, 7, 65535),
        "TileLength": (0, 1, 7, 65535),
        "SamplesPerPixel": (0, 2, 5, 65535),
        "BitsPerSample": (0, 1, 7, 64, 65535),
        "Compression": (0, 2, 5, 7, 8, 34712, 50000, 50001, 65535),
        "PhotometricInterpretation": (0, 3, 5, 6, 8, 9999),
        "PlanarConfiguration": (0, 2, 9),
        "TileOffsets": (0, 1, 2**31, 2**32 - 1),
        "TileByteCounts": (0, 1, 2**31, 2**32 - 1),
    }
    for name, values in lies.items():
        for value in values:
            path = plain(folder / f"{name}-{value}.tif")
            set_tag(path, name, value)
            yield path
        for part, value in (("count", 0), ("count", 2**32 - 1), ("count", 10**8), ("type", 0), ("type", 99)):
            path = plain(folder / f"{name}-{part}-{value}.tif")
            set_tag(path, name, value, part=part)
            yield path


def strips_that_lie(folder: Path) -> Iterator[Path]:
    """Yield TIFFs in strips of impossible heights."""
    for name, value in (("RowsPerStrip", 0), ("RowsPerStrip", 2**32 - 1), ("ImageLength", HUGE), ("ImageWidth", HUGE)):
        for compression in (None, "deflate"):
            path = folder / f"strip-{name}-{value}-{compression}.tif"
            tifffile.imwrite(path, noise_image(64, 64), photometric="rgb", compression=compression, metadata=None)
            set_tag(path, name, value)
            yield path


def huge_and_empty(folder: Path) -> Iterator[Path]:
    """Yield TIFFs that declare a million pixels a side and hold a few bytes."""
    for compression in ("jpeg", "deflate", "none"):
        path = plain(folder / f"million-{compression}.tif", compression=None if compression == "none" else compression)
        set_tag(path, "ImageWidth", HUGE)
        set_tag(path, "ImageLength", HUGE)
        yield path
        set_tag(path, "TileWidth", 65535)
        set_tag(path, "TileLength", 65535)
        yield path


def bombs(folder: Path) -> Iterator[Path]:
    """Yield TIFFs whose tiles grow a thousandfold, or claim to."""
    zeros = bytes(BOMB)
    streams: dict[int, bytes] = {
        8: zlib.compress(zeros, 9),
        32946: zlib.compress(zeros, 9),
        50000: imagecodecs.zstd_encode(zeros),
        5: imagecodecs.lzw_encode(bytes(1 << 24)),
        34925: imagecodecs.lzma_encode(bytes(1 << 26)),
    }
    del zeros
    black = np.zeros((6000, 6000, 3), np.uint8)
    for code, encode in {
        7: lambda: imagecodecs.jpeg_encode(black, level=5),
        34712: lambda: imagecodecs.jpeg2k_encode(black, level=20),
        50001: lambda: imagecodecs.webp_encode(black, level=1),
        34933: lambda: imagecodecs.png_encode(black, level=9),
    }.items():
        streams[code] = encode()
    jpeg = bytearray(imagecodecs.jpeg_encode(black[:64, :64], level=5))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    streams[-7] = bytes(jpeg)
    for code, stream in streams.items():
        path = folder / f"bomb{code}.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(
                iter([stream]),
                shape=(256, 256, 3),
                dtype=np.uint8,
                tile=(256, 256),
                compression=abs(code),
                photometric="rgb",
                metadata=None,
            )
        yield path


def directories_in_circles(folder: Path) -> Iterator[Path]:
    """Yield TIFFs whose directories lead back to themselves, or nowhere."""
    for name, target in (("itself", "first"), ("header", 0), ("beyond", 2**32 - 2), ("odd", 7)):
        path = plain(folder / f"circle-{name}.tif")
        with tifffile.TiffFile(path) as tiff:
            first = tiff.pages.first
            link = first.offset + 2 + 12 * len(first.tags)
            order = tiff.byteorder
        with path.open("r+b") as raw:
            raw.seek(link)
            raw.write(struct.pack(order + "I", first.offset if target == "first" else target))
        yield path
    path = folder / "circle-sub.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(noise_image(256, 256), photometric="rgb", tile=(64, 64), subifds=1, metadata=None)
        file.write(noise_image(128, 128), photometric="rgb", tile=(64, 64), subfiletype=1, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.offset
    set_tag(path, "SubIFDs", place)
    yield path


def texts(folder: Path) -> Iterator[Path]:
    """Yield TIFFs whose descriptions are no text, no XML, or too much of it."""
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(12))
    descriptions: dict[str, bytes] = {
        "latin": "Aperio Image Library\n µm Größe|MPP = 0.25".encode("latin-1"),
        "bytes": bytes(range(128, 256)),
        "aperio-mpp": aperio_description(None).encode() + b"|MPP = nan|AppMag = inf",
        "aperio-text": aperio_description(None).encode() + b"|MPP = <script>|AppMag = " + b"9" * 5000,
        "aperio-negative": aperio_description(-0.25).encode(),
        "laughs": f"<!DOCTYPE OME [{laughs}]>{OME.format('&a11;')}".encode(),
        "entity": f'<!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]>{OME.format("&x;")}'.encode(),
        "deep": OME.format("<a>" * 50_000 + "</a>" * 50_000).encode(),
        "ome-empty": OME.format("").encode(),
        "ome-sizes": OME.format(
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="-5" SizeY="1e9" '
            'SizeC="x" SizeZ="99999999" SizeT="99999999" PhysicalSizeX="nan" PhysicalSizeY="-1"><TiffData/></Pixels>'
            "</Image>"
        ).encode(),
        "ome-files": OME.format(
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="256" SizeY="256" '
            'SizeC="3" SizeZ="1" SizeT="1"><TiffData><UUID FileName="../../../../etc/passwd">urn:uuid:1</UUID>'
            "</TiffData></Pixels></Image>"
        ).encode(),
        "imagej": b"ImageJ=1.53\nimages=99999999\nslices=99999999\nunit=\\u00B5m\n",
        "shaped": b'{"shape": [99999999, 99999999, 3]}',
        "scn": b'<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection/></scn>',
        "philips": b'<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"></DataObject>',
    }
    for name, text in descriptions.items():
        path = folder / f"text-{name}.tif"
        yield plain(path, description=text, **({"software": "Philips DP v1.0"} if name == "philips" else {}))


def pictures(folder: Path) -> Iterator[Path]:
    """Yield plain images that declare too much, compress too well, or end early."""
    buffer = io.BytesIO()
    Image.fromarray(noise_image(64, 64)).save(buffer, "PNG")
    png = bytearray(buffer.getvalue())
    for size in ((HUGE, HUGE), (0, 0), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1), (30_000, 30_000)):
        header = b"IHDR" + struct.pack(">II", *size) + bytes(png[24:29])
        changed = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
        (path := folder / f"png-{size[0]}-{size[1]}.png").write_bytes(changed)
        yield path
    for kind in (b"zTXt", b"iCCP", b"iTXt"):
        middle = {b"zTXt": b"k\0\0", b"iCCP": b"p\0\0", b"iTXt": b"k\0\1\0\0\0"}[kind]
        chunk = kind + middle + zlib.compress(bytes(BOMB), 9)
        block = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (path := folder / f"png-{kind.decode()}.png").write_bytes(bytes(png[:33]) + block + bytes(png[33:]))
        yield path
    for kind in ("JPEG", "BMP", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.fromarray(noise_image(64, 64)).save(buffer, kind)
        content = bytearray(buffer.getvalue())
        for part in (0.1, 0.5, 0.95):
            (path := folder / f"{kind}-{part}.jpg").write_bytes(content[: int(len(content) * part)])
            yield path
        if kind == "BMP":
            content[18:26] = struct.pack("<ii", HUGE, -HUGE)
        if kind == "JPEG":
            frame = content.index(b"\xff\xc0")
            content[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
        (path := folder / f"{kind}-huge.jpg").write_bytes(content)
        yield path


def other_formats(folder: Path) -> Iterator[Path]:
    """Yield files that begin as a scanner's format and do not go on so."""
    vms = "[Virtual Microscope Specimen]\nNoLayers={}\nNoJpegColumns=1\nNoJpegRows=1\nImageFile={}\nMapFile={}\n"
    contents: dict[str, bytes] = {
        "zeros.czi": b"ZISRAWFILE" + bytes(5000),
        "ones.czi": b"ZISRAWFILE" + b"\xff" * 5000,
        "noise.czi": b"ZISRAWFILE" + noise_image(50, 50).tobytes(),
        "zeros.dcm": bytes(128) + b"DICM" + bytes(5000),
        "noise.dcm": bytes(128) + b"DICM" + noise_image(50, 50).tobytes(),
        "alone.mrxs": b"\xff\xd8\xff\xe0" + bytes(500),
        "missing.vms": vms.format(1, "none.jpg", "none.map.jpg").encode(),
        "outside.vms": vms.format(1, "../../../etc/passwd", "/etc/passwd").encode(),
        "many.vms": vms.format(10**9, "a.jpg", "b.jpg").encode(),
        "empty.vmu": b"[Uncompressed Virtual Microscope Specimen]\n",
        "zip.svs": b"PK\x03\x04" + bytes(500),
        "bigtiff.svs": b"II+\0\x08\0\0\0" + b"\xff" * 100,
        "bigtiff-odd.svs": b"II+\0\x07\0\0\0" + bytes(100),
        "tags.svs": b"II*\0\x08\0\0\0\xff\xff" + noise_image(40, 40).tobytes(),
        "header.svs": b"MM\0*",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name


def strange_places(folder: Path) -> Iterator[Path]:
    """Yield paths that are no files, lead in circles, or are no text."""
    os.mkfifo(folder / "fifo.svs")
    (folder / "loop-a.svs").symlink_to(folder / "loop-b.svs")
    (folder / "loop-b.svs").symlink_to(folder / "loop-a.svs")
    (folder / "dangling.svs").symlink_to(folder / "nowhere.svs")
    (folder / "folder.svs").mkdir()
    yield from (folder / name for name in ("fifo.svs", "loop-a.svs", "dangling.svs", "folder.svs", "absent.svs"))
    yield folder / ("a" * 250 + ".svs")
    yield Path("/dev/zero")
    yield Path("/dev/null")
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9-\xff.tif"))
    yield plain(folder / "odd.tif").rename(odd)
    yield plain(folder / "line.tif").rename(folder / "two\nlines\x1b[31m.tif")


def mutations(folder: Path) -> Iterator[Path]:
    """Yield slides with bytes overwritten where their directories are."""
    source = write_slide(folder / "whole.svs", smooth_image(300, 300))
    content = source.read_bytes()
    with tifffile.TiffFile(source) as tiff:
        places = [page.offset for page in tiff.pages]  # type: ignore[union-attr]
    rng = np.random.default_rng(0)
    for number in range(60):
        changed = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.choice(places)) + int(rng.integers(0, 220))
            changed[at : at + 4] = rng.bytes(len(changed[at : at + 4]))
        (path := folder / f"mutation{number}.svs").write_bytes(changed)
        yield path


FAMILIES: tuple[Callable[[Path], Iterator[Path]], ...] = (
    tags_that_lie,
    strips_that_lie,
    huge_and_empty,
    bombs,
    directories_in_circles,
    texts,
    pictures,
    other_formats,
    strange_places,
    mutations,
)
