"""Annotated images: a folder of images and label images, and which of them are for validation."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Annotated
from nuclix.engine.errors import DataError

IMAGE_SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
LABEL_SUFFIXES = (".png", ".tif", ".tiff")
HOLD_OUT_ONE_IN = 5
SPLIT_FILE = "split.csv"
PARTS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Annotated images in two parts, and perhaps more of another kind to train on.

    Attributes
    ----------
    train, validation : tuple of Annotated
        What is learned from and what is scored.
    split : str
        Where this split comes from, in words.
    extra : tuple of Annotated
        Images of another data set that are learned from as well.
    share : float
        Part of the patches that come from `extra`.
    """

    train: tuple[Annotated, ...]
    validation: tuple[Annotated, ...]
    split: str
    extra: tuple[Annotated, ...] = ()
    share: float = 0.0

    @property
    def weights(self) -> list[float] | None:
        """How likely each image of train and extra is; None where all are alike."""
        if not self.extra:
            return None
        own, other = (1 - self.share) / len(self.train), self.share / len(self.extra)
        return [own] * len(self.train) + [other] * len(self.extra)


def with_extra(dataset: Dataset, folder: Path, pattern: str, share: float) -> Dataset:
    """Add the images of another folder to train on: those that match and that its own split does not hold out.

    Parameters
    ----------
    dataset : Dataset
        Keeps its own validation images.
    folder : Path
        As `load_dataset` reads it.
    pattern : str
        Shell pattern of the names to take, such as ``he_*``.
    share : float
        Part of the patches that come from there, between 0 and 1.

    Raises
    ------
    DataError
        If no name matches, or the folder can't be read.
    """
    extra = tuple(item for item in load_dataset(folder).train if fnmatchcase(item.name, pattern))
    if not extra:
        raise DataError(f"{folder}: no image to train on matches {pattern!r}")
    return replace(dataset, extra=extra, share=share)


def load_dataset(folder: Path, split: Path | None = None, shipped: Sequence[Path] = ()) -> Dataset:
    """Read a folder with ``images/`` and ``labels/``, matched by file name without suffix.

    Parameters
    ----------
    folder : Path
        Holds the two folders, and perhaps a `split.csv`.
    split : Path, optional
        CSV with the columns image and split (train or validation), and perhaps group.
    shipped : sequence of Path
        Such files of known data sets; the first that names every image is taken where neither `split` nor
        `split.csv` is there. Failing that, one image in five is held out by a hash of its name.

    Returns
    -------
    Dataset
        Both parts in the order of the names.

    Raises
    ------
    DataError
        If something is missing, can't be read or does not fit; the message names the file.
    """
    pairs = _matched(folder)
    parts, source = _split(folder, tuple(pairs), split, shipped)
    loaded: dict[str, list[Annotated]] = {part: [] for part in PARTS}
    for name, (image, labels) in pairs.items():
        if name in parts:
            loaded[parts[name]].append(load_annotated(image, labels))
    for part in PARTS:
        if not loaded[part]:
            raise DataError(f"{folder}: the split ({source}) leaves no image for {part}")
    return Dataset(tuple(loaded["train"]), tuple(loaded["validation"]), source)


def load_annotated(image: Path, labels: Path) -> Annotated:
    """Read one image and its label image; raise `DataError` where they can't be read or differ in size."""
    pixels = _read(image, "RGB").astype(np.uint8)
    numbers = _read(labels, None)
    if numbers.ndim != 2 or numbers.dtype.kind not in "iub":
        raise DataError(f"{labels}: a label image has one channel of whole numbers, this is {_kind(numbers)}")
    if pixels.shape[:2] != numbers.shape:
        raise DataError(f"{labels}: is {_size(numbers)} but {image.name} is {_size(pixels)}")
    return Annotated(image.stem, pixels, numbers.astype(np.int32))


def read_split(path: Path) -> dict[str, str]:
    """Return name to "train" or "validation" from a CSV with the columns image and split."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{path}: can't be read as a CSV: {problem}") from problem
    if not rows or not {"image", "split"} <= set(rows[0]):
        raise DataError(f"{path}: needs the columns image and split (group is optional)")
    for number, row in enumerate(rows, 2):
        if not row["image"] or row["split"] not in PARTS:
            raise DataError(f"{path}, line {number}: split must be one of {', '.join(PARTS)}, not {row['split']!r}")
    return {row["image"]: row["split"] for row in rows}


def _matched(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return name to (image file, label file), both folders holding the same names."""
    images = _by_stem(folder / "images", IMAGE_SUFFIXES)
    labels = _by_stem(folder / "labels", LABEL_SUFFIXES)
    for one, other, kind in ((images, labels, "label image"), (labels, images, "image")):
        lonely = sorted(set(one) - set(other))
        if lonely:
            raise DataError(f"{one[lonely[0]]}: has no {kind} of the same name ({len(lonely)} such file(s))")
    return {name: (images[name], labels[name]) for name in sorted(images)}


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; training data is a folder with images/ and labels/ in it")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in suffixes:
            raise DataError(f"{path}: not one of {', '.join(suffixes)}")
        if path.stem in found:
            raise DataError(f"{path}: has the same name as {found[path.stem].name}")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: is empty")
    return found


def _split(
    folder: Path, names: Sequence[str], split: Path | None, shipped: Sequence[Path]
) -> tuple[Mapping[str, str], str]:
    """Return name to part, and in words where that comes from."""
    own = folder / SPLIT_FILE
    if split is None and own.is_file():
        split = own
    if split is not None:
        parts = read_split(split)
        unknown = sorted(set(parts) - set(names))
        if unknown:
            raise DataError(f"{split}: names {unknown[0]}, which is not in {folder / 'images'}")
        return parts, split.name
    for path in shipped:
        parts = read_split(path)
        if set(names) == set(parts):
            return parts, f"{path.name} of the recipe"
    return {name: PARTS[held_out(name)] for name in names}, f"one in {HOLD_OUT_ONE_IN} by hash of the name"


def held_out(name: str) -> bool:
    """Say whether an image without a stated split is for validation: one in five, by SHA-256 of its name."""
    return hashlib.sha256(name.encode()).digest()[0] % HOLD_OUT_ONE_IN == 0


def _read(path: Path, mode: str | None) -> NDArray[np.generic]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return np.asarray(file if mode is None else file.convert(mode))
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as problem:
        raise DataError(f"{path}: can't be read as an image: {problem}") from problem


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[1]} x {array.shape[0]} px"


def _kind(array: NDArray[np.generic]) -> str:
    channels = 1 if array.ndim == 2 else array.shape[-1]
    return f"{channels} channel(s) of {array.dtype}"
