"""Small slides laid out as scanners do for which OpenSlide has a format: DICOM, Philips, Ventana, Trestle, VMU."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from slides import Image, reduced

TILE = 128
XMP = 700
BYTE = 1
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
ROOT = "1.2.826.0.1.3680043.10.511"  # below it the test's own identifiers
NGR_COLUMN = 64
UNDEFINED = 0xFFFFFFFF  # length of a sequence or item that a delimiter ends
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
NESTED_SEQUENCE = struct.pack("<HHIHH2sHI", 0xFFFE, 0xE000, UNDEFINED, 0x5200, 0x9229, b"SQ", 0, UNDEFINED)


def on_whole_tiles(image: Image) -> Image:
    """Return an image on white, its sides whole numbers of tiles."""
    height, width = (-(-length // TILE) * TILE for length in image.shape[:2])
    out = np.full((height, width, 3), 255, np.uint8)
    out[: image.shape[0], : image.shape[1]] = image
    return out


def tiles_of(image: Image) -> Image:
    """Return the tiles of an image as (count, TILE, TILE, 3), row by row; it needs whole tiles."""
    rows, cols = image.shape[0] // TILE, image.shape[1] // TILE
    return image.reshape(rows, TILE, cols, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)


def write_dicom(folder: Path, image: Image, mpp: float, downs: tuple[int, ...] = (1, 2, 4)) -> Path:
    """Write a DICOM series of whole-slide images, a file for each level, and return the first level's."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, down in enumerate(downs):
        level = reduced(image, down)
        data = dicom_elements(level, mpp * down, number)
        (folder / f"level-{number}.dcm").write_bytes(dicom_file(data, number))
    return folder / "level-0.dcm"


def dicom_elements(level: Image, mpp: float, number: int) -> list[bytes]:
    """Return the data elements of one level, in the order of their tags."""
    spacing = f"{mpp / 1000:.8f}"
    measures = sequence(0x0028, 0x9110, element(0x0028, 0x0030, b"DS", f"{spacing}\\{spacing}".encode()))
    kind = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    tiles = tiles_of(on_whole_tiles(level))
    shorts = {0x0002: 3, 0x0006: 0, 0x0010: TILE, 0x0011: TILE, 0x0100: 8, 0x0101: 8, 0x0102: 7, 0x0103: 0}
    pixel = {code: element(0x0028, code, b"US", struct.pack("<H", value)) for code, value in shorts.items()}
    pixel[0x0004] = element(0x0028, 0x0004, b"CS", b"RGB")
    pixel[0x0008] = element(0x0028, 0x0008, b"IS", str(len(tiles)).encode())
    return [
        element(0x0008, 0x0008, b"CS", kind.encode()),
        element(0x0008, 0x0016, b"UI", WHOLE_SLIDE_IMAGE.encode()),
        element(0x0008, 0x0018, b"UI", f"{ROOT}.1.{number + 1}".encode()),
        element(0x0008, 0x0060, b"CS", b"SM"),
        element(0x0020, 0x000D, b"UI", f"{ROOT}.2".encode()),
        element(0x0020, 0x000E, b"UI", f"{ROOT}.3".encode()),
        element(0x0020, 0x9311, b"CS", b"TILED_FULL"),
        *(pixel[code] for code in sorted(pixel)),
        element(0x0048, 0x0006, b"UL", struct.pack("<I", level.shape[1])),
        element(0x0048, 0x0007, b"UL", struct.pack("<I", level.shape[0])),
        element(0x0048, 0x0303, b"UL", struct.pack("<I", 1)),
        sequence(0x5200, 0x9229, measures),
        element(0x7FE0, 0x0010, b"OB", tiles.tobytes()),
    ]


def dicom_file(elements: list[bytes], number: int) -> bytes:
    """Return a file: preamble, meta information (PS3.10, 7.1) and data elements."""
    meta = b"".join(
        [
            element(0x0002, 0x0001, b"OB", b"\0\1"),
            element(0x0002, 0x0002, b"UI", WHOLE_SLIDE_IMAGE.encode()),
            element(0x0002, 0x0003, b"UI", f"{ROOT}.1.{number + 1}".encode()),
            element(0x0002, 0x0010, b"UI", EXPLICIT_LITTLE_ENDIAN.encode()),
        ]
    )
    return bytes(128) + b"DICM" + element(0x0002, 0, b"UL", struct.pack("<I", len(meta))) + meta + b"".join(elements)


def broken_dicom(path: Path, item: bytes, count: int) -> Path:
    """Write a DICOM slide whose functional groups, a sequence of no stated length, are `count` times `item`."""
    elements = dicom_elements(np.zeros((TILE, TILE, 3), np.uint8), 0.25, 0)
    groups = struct.pack("<HH2sHI", 0x5200, 0x9229, b"SQ", 0, UNDEFINED) + item * count
    path.write_bytes(dicom_file([*elements[:-2], groups], 0))
    return path


def element(group: int, code: int, kind: bytes, value: bytes) -> bytes:
    """Return a data element with an explicit value representation (PS3.5, 7.1.2)."""
    if len(value) % 2:
        value += b"\0" if kind in (b"UI", b"OB") else b" "
    if kind in (b"OB", b"SQ"):
        return struct.pack("<HH2sHI", group, code, kind, 0, len(value)) + value
    return struct.pack("<HH2sH", group, code, kind, len(value)) + value


def sequence(group: int, code: int, content: bytes) -> bytes:
    """Return a sequence of one item (PS3.5, 7.5)."""
    return element(group, code, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content)


def write_philips(path: Path, image: Image, mpp: float, downs: tuple[int, ...] = (1, 2)) -> Path:
    """Write a Philips TIFF: levels padded to whole tiles, their scales in the XML of the first."""

    def attribute(name: str, value: str, kind: str = "IString") -> str:
        return f'<Attribute Name="{name}" Group="0x301D" Element="0x1001" PMSVR="{kind}">{value}</Attribute>'

    def spacing(down: int) -> str:
        return attribute("DICOM_PIXEL_SPACING", " ".join([f'"{mpp * down / 1000:.8f}"'] * 2), "IDoubleArray")

    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(down)}'
        f"{attribute('PIIM_PIXEL_DATA_REPRESENTATION_NUMBER', str(number), 'IUInt16')}</DataObject>"
        for number, down in enumerate(downs)
    )
    scanned = (
        f'<DataObject ObjectType="DPScannedImage">{attribute("PIM_DP_IMAGE_TYPE", "WSI")}{spacing(1)}'
        f"{attribute('PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE', f'<Array>{levels}</Array>', 'IDataObjectArray')}"
        "</DataObject>"
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        f"{attribute('DICOM_MANUFACTURER', 'PHILIPS')}"
        f"{attribute('PIM_DP_SCANNED_IMAGES', f'<Array>{scanned}</Array>', 'IDataObjectArray')}</DataObject>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, down in enumerate(downs):
            file.write(
                on_whole_tiles(reduced(image, down)),
                tile=(TILE, TILE),
                photometric="rgb",
                metadata=None,
                software="Philips DP v1.0",
                description=xml if number == 0 else None,
                subfiletype=0 if number == 0 else 1,
            )
    return path


def write_bif(path: Path, image: Image, mpp: float, overlap: int) -> Path:
    """Write a Ventana BIF: tiles that share `overlap` pixels with their neighbours; what is left over is cut off."""
    mosaic, rows, cols = overlapping(image, overlap)
    joints = []
    for row in range(rows):
        for col in range(cols):
            right, above = number_from_below(row, col + 1, rows, cols), number_from_below(row - 1, col, rows, cols)
            here = number_from_below(row, col, rows, cols)
            if col + 1 < cols:
                joints.append(joint("RIGHT", here, right, overlap, 0))
            if row > 0:
                joints.append(joint("UP", here, above, 0, overlap))
    info = f'AOIScanned="1" AOIIndex="0" Width="{TILE}" Height="{TILE}" NumRows="{rows}" NumCols="{cols}"'
    encode = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo {info} Pos-X="0" Pos-Y="0">{"".join(joints)}</ImageInfo>'
        '</SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    ).encode()
    scan = f'<iScan Z-layers="1" Magnification="40" ScanRes="{mpp}" UnitNumber="1" BuildVersion="3"/>'.encode()
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None, "software": "ScanOutputManager 1.1.0.15854"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        tag = (XMP, BYTE, len(scan), scan, True)
        file.write(np.full((60, 40, 3), 200, np.uint8), description="Label Image", extratags=[tag], **options)
        options["tile"] = (TILE, TILE)
        tag = (XMP, BYTE, len(encode), encode, True)
        file.write(mosaic, description="level=0 mag=40 quality=95", extratags=[tag], **options)
        half = on_whole_tiles(reduced(mosaic, 2))
        file.write(half, description="level=1 mag=20 quality=95", **options)
    return path


def joint(direction: str, first: int, second: int, across: int, down: int) -> str:
    """Return how two tiles are joined."""
    return (
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{direction}" Tile1="{first}" Tile2="{second}" '
        f'OverlapX="{across}" OverlapY="{down}"/>'
    )


def number_from_below(row: int, col: int, rows: int, cols: int) -> int:
    """Return a tile's number: from 1, rows from below, to the right and back in turn, as the stage moved."""
    up = rows - row - 1
    return up * cols + (cols - col - 1 if up % 2 else col) + 1


def write_trestle(path: Path, image: Image, mpp: float, overlap: int) -> Path:
    """Write a Trestle TIFF: tiles that share `overlap` pixels; the resolution tags hold um/px."""
    mosaic, _, _ = overlapping(image, overlap)
    tifffile.imwrite(
        path,
        mosaic,
        tile=(TILE, TILE),
        photometric="rgb",
        metadata=None,
        software="MedScan",
        description=f"Background Color=FFFFFF;White Balance=D5;Objective Power=40;OverlapsXY= {overlap} {overlap}",
        resolution=(mpp, mpp),
    )
    return path


def overlapping(image: Image, overlap: int) -> tuple[Image, int, int]:
    """Return overlapping tiles of an image side by side, with the numbers of rows and columns."""
    step = TILE - overlap
    rows, cols = ((length - overlap) // step for length in image.shape[:2])
    strips = [
        np.hstack([image[row * step : row * step + TILE, col * step : col * step + TILE] for col in range(cols)])
        for row in range(rows)
    ]
    return np.vstack(strips), rows, cols


def write_vmu(path: Path, image: Image, mpp: float) -> Path:
    """Write a Hamamatsu VMU: a text file that names two NGR files of 12-bit samples."""
    for suffix, level in ((".ngr", image), (".map.ngr", reduced(image, 4))):
        path.with_suffix(suffix).write_bytes(ngr(level))
    height, width = (round(length * mpp * 1000) for length in image.shape[:2])
    path.write_text(
        "[Uncompressed Virtual Microscope Specimen]\n"
        f"NoLayers=1\nImageFile={path.stem}.ngr\nMapFile={path.stem}.map.ngr\nBitsPerPixel=36\nPixelOrder=RGB\n"
        f"PhysicalWidth={width}\nPhysicalHeight={height}\nSourceLens=40\n"
    )
    return path


def ngr(image: Image) -> bytes:
    """Return an NGR file: a header, then one column of pixels after the other, each sample 12 bits in 16."""
    height, width = image.shape[:2]
    assert width % NGR_COLUMN == 0
    columns = (image.astype("<u2") << 4).reshape(height, width // NGR_COLUMN, NGR_COLUMN, 3).swapaxes(0, 1)
    head = b"GN\0\0" + struct.pack("<iii", width, height, NGR_COLUMN)
    return head.ljust(24, b"\0") + struct.pack("<i", 28) + np.ascontiguousarray(columns).tobytes()
