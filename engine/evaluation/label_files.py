"""Files that hold nuclei (label images, GeoJSON, ImageScope's XML) read into label images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.polygons import OUTLINE_SUFFIXES, Polygons, rasterise, read_polygons

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
FOLDER_SUFFIXES = (*IMAGE_SUFFIXES, *(suffix for suffix in OUTLINE_SUFFIXES if not suffix.startswith(".json")))
# Taken off as well, so that slide.svs.geojson is slide's.
SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".jpg", ".jpeg", ".webp", ".ome")
CLASS_MARK = ".classes"  # NAME.classes.csv or NAME.classes.png next to NAME.png
# Formats in which a run writes the same nuclei, in the order in which they are taken.
_SAME_NUCLEI = (".geojson", ".geojson.gz", ".zip")
MAX_PIXELS = 2**31  # of a canvas that polygons alone ask for; a label image of it takes 8 GB


def stem_of(path: Path) -> str:
    """Return the file's name without the suffixes of label files and slides: ``a.svs.geojson.gz`` is ``a``."""
    name = path.name
    while True:
        known = [suffix for suffix in (*FOLDER_SUFFIXES, ".json.gz", ".json", *SLIDE_SUFFIXES) if _ends(name, suffix)]
        if not known:
            return name
        name = name[: -max(len(suffix) for suffix in known)]


def _ends(name: str, suffixes: str | tuple[str, ...]) -> bool:
    suffixes = (suffixes,) if isinstance(suffixes, str) else suffixes
    return any(name.lower().endswith(suffix) and len(name) > len(suffix) for suffix in suffixes)


def find_label_files(path: Path) -> dict[str, Path]:
    """Find the label files of a folder, or take a single file.

    In a folder these are PNG, TIFF and npy label images and ``.geojson``, ``.geojson.gz``, ``.zip`` and ``.xml`` files;
    a ``.json`` (which may be anything) is read only when it is named itself. Of NAME.geojson, NAME.geojson.gz and
    NAME.zip, in which a run writes the same nuclei, the first counts.

    Parameters
    ----------
    path : Path
        A folder, not searched deeper, or a file.

    Returns
    -------
    dict of str to Path
        The files by stem, in order of stem.

    Raises
    ------
    DataError
        If there is nothing at `path`, nothing to read in it, or two files have one stem.
    """
    if path.is_dir():
        files = [entry for entry in sorted(path.iterdir()) if _ends(entry.name, FOLDER_SUFFIXES)]
        files = [entry for entry in files if entry.is_file() and not entry.name.startswith(".")]
        files = [entry for entry in files if not entry.name.removesuffix(entry.suffix).endswith(CLASS_MARK)]
        files = _first_formats(files)
        if not files:
            raise DataError(f"{path} holds no label files ({', '.join(FOLDER_SUFFIXES)})")
    elif path.is_file():
        files = [path]
    else:
        raise DataError(f"{path} does not exist")
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(stem_of(file), file)
        if other is not file:
            raise DataError(f"{other} and {file} are both named {stem_of(file)}: keep one of them")
    return dict(sorted(found.items()))


def _first_formats(files: list[Path]) -> list[Path]:
    """Leave out further formats of a result: with NAME.geojson in the folder, NAME.geojson.gz and NAME.zip."""
    chosen: dict[str, Path] = {}
    for suffix in _SAME_NUCLEI:
        for file in files:
            if _ends(file.name, suffix):
                chosen.setdefault(file.name[: -len(suffix)], file)
    kept = set(chosen.values())
    return [file for file in files if file in kept or not _ends(file.name, _SAME_NUCLEI)]


def class_file_of(path: Path) -> Path | None:
    """Return the class file next to a label image, or None where there is none: a CSV file goes before an image."""
    base = path.with_name(path.name.removesuffix(path.suffix) + CLASS_MARK)
    candidates = (base.with_name(base.name + suffix) for suffix in (".csv", *IMAGE_SUFFIXES))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@dataclass(frozen=True, slots=True)
class LabelPair:
    """Two label images of one shape, and what a user should know of how they came about."""

    truth: NDArray[Any]
    prediction: NDArray[Any]
    notes: tuple[str, ...]


def read_pair(truth: Path, prediction: Path, downsample: float = 1.0) -> LabelPair:
    """Read two label files as label images of one shape.

    Polygons are drawn into the other file's shape; where both files hold polygons, into the smallest image that
    begins at (0, 0) and holds all of them.

    Parameters
    ----------
    truth, prediction : Path
        Label images or GeoJSON, in any combination.
    downsample : float
        Level-0 pixels (the unit of GeoJSON) along one pixel of the label images.

    Returns
    -------
    LabelPair
        (H, W) arrays of integer.

    Raises
    ------
    DataError
        If a file can't be read or is no label image, the shapes differ, or a polygon lies outside the image.
    """
    first, second = (_read(path) for path in (truth, prediction))
    if isinstance(first, Polygons) and isinstance(second, Polygons):
        heights, widths = zip(first.extent(downsample), second.extent(downsample), strict=True)
        shape = (max(heights), max(widths))
        if shape[0] * shape[1] > MAX_PIXELS:
            raise DataError(f"{truth} and {prediction} span {shape[0]} x {shape[1]} px: use a larger --downsample")
    else:
        shape = (second if isinstance(first, Polygons) else first).shape  # type: ignore[union-attr]
    images = [
        rasterise(found, shape, downsample, path) if isinstance(found, Polygons) else found
        for found, path in ((first, truth), (second, prediction))
    ]
    if images[0].shape != images[1].shape:
        (height, width), (other_height, other_width) = (image.shape for image in images)
        raise DataError(
            f"{truth} is {height} x {width} px but {prediction} is {other_height} x {other_width} px: "
            "they must be of one size"
        )
    notes = [
        f"{path} holds one label in several pieces: a mask? Label its components first"
        for path, found in ((truth, first), (prediction, second))
        if not isinstance(found, Polygons) and _one_label(found)
    ]
    return LabelPair(images[0], images[1], tuple(notes))


def read_labels(path: Path, shape: tuple[int, int]) -> NDArray[np.integer[Any] | np.bool_]:
    """Read the nuclei of one image from a label image or from outlines.

    Parameters
    ----------
    path : Path
        A label image, or GeoJSON or XML outlines in the image's pixels.
    shape : (int, int)
        Height and width of the image that outlines are drawn into.

    Returns
    -------
    (H, W) array of bool or integer
        A label image has its own size, which the caller checks.

    Raises
    ------
    DataError
        If the file can't be read, or an outline lies outside the image.
    """
    found = _read(path)
    return rasterise(found, shape, 1.0, path) if isinstance(found, Polygons) else found


def _read(path: Path) -> NDArray[Any] | Polygons:
    return read_polygons(path) if _ends(path.name, OUTLINE_SUFFIXES) else read_label_image(path)


def _one_label(image: NDArray[Any]) -> bool:
    """Return whether the only label lies in more than one 8-connected piece."""
    high = image.max(initial=0)
    if not high or bool(((image != 0) & (image != high)).any()):
        return False
    from nuclix.ext.components import connected_components

    return bool(connected_components(image != 0, 8)[1] > 1)


def read_label_image(path: Path) -> NDArray[Any]:
    """Read a label image.

    Parameters
    ----------
    path : Path
        PNG, TIFF (its first image) or npy.

    Returns
    -------
    (H, W) array of bool or integer
        The labels as they stand in the file; none is negative.

    Raises
    ------
    DataError
        If the file can't be read or does not hold a label image; the message says which and why.
    """
    import tifffile

    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(f"{path} is no label file: {', '.join((*IMAGE_SUFFIXES, *OUTLINE_SUFFIXES))} are read")
    try:
        if suffix == ".npy":
            image = np.load(path, allow_pickle=False)
        elif suffix == ".png":
            image = _read_png(path)
        else:
            image = tifffile.imread(path)
    except (OSError, EOFError, ValueError, RuntimeError, SyntaxError, MemoryError, tifffile.TiffFileError) as error:
        raise DataError(f"{path} can't be read as a label image: {error}") from error
    return _checked(np.asarray(image), path)


def _read_png(path: Path) -> NDArray[Any]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2  # Pillow refuses twice its limit
        try:
            with Image.open(path, formats=["PNG"]) as file:
                return np.asarray(file)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _checked(image: NDArray[Any], path: Path) -> NDArray[Any]:
    if image.ndim == 3 and image.shape[-1] in (2, 3, 4):
        raise DataError(f"{path} is a colour image of {image.shape[-1]} channels; a label image has one, of integers")
    if image.ndim != 2:
        raise DataError(f"{path} has {image.ndim} dimensions {image.shape}; a label image has two")
    if image.dtype.kind == "f":
        raise DataError(f"{path} holds floats ({image.dtype}); a label image holds integers: is it a probability map?")
    if image.dtype.kind not in "bui":
        raise DataError(f"{path} holds {image.dtype}; a label image holds integers")
    if image.dtype.kind == "i" and image.size and image.min() < 0:
        raise DataError(f"{path} holds the negative label {image.min()}; background is 0 and labels are positive")
    return image
