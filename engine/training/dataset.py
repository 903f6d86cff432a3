"""Annotated images: a folder of images and label images, and which of them are for validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.errors import DataError
from nuclix.engine.evaluation.label_files import read_labels
from nuclix.engine.training.contracts import Annotated
from nuclix.engine.training.image_scales import resampled, scales_of
from nuclix.engine.training.splits import PARTS, TRAIN, VALIDATION, SplitOptions, split_images

IMAGE_SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
OUTLINE_SUFFIXES = (".geojson", ".geojson.gz", ".xml")  # QuPath's annotations or detections; ImageScope's and MoNuSeg's
LABEL_SUFFIXES = (".png", ".tif", ".tiff", *OUTLINE_SUFFIXES)
_MASK_VALUES = (1, 255)  # of nuclei in a mask
_USUAL_SPLIT = SplitOptions()


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


def with_extra(dataset: Dataset, folder: Path, pattern: str, share: float, mpp: float | None = None) -> Dataset:
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
    mpp : float, optional
        As `load_dataset` takes it.

    Raises
    ------
    DataError
        If no name matches, or the folder can't be read.
    """
    extra = tuple(item for item in load_dataset(folder, mpp=mpp).train if fnmatchcase(item.name, pattern))
    if not extra:
        raise DataError(f"{folder}: no image to train on matches {pattern!r}")
    return replace(dataset, extra=extra, share=share)


def load_dataset(folder: Path, options: SplitOptions = _USUAL_SPLIT, mpp: float | None = None) -> Dataset:
    """Read a folder with ``images/`` and ``labels/``, matched by file name without suffix.

    Parameters
    ----------
    folder : Path
        Holds the two folders, and perhaps ``split.csv``, ``groups.csv`` and ``images.csv`` (columns image and
        mpp).
    options : SplitOptions
        Which images train and which validate.
    mpp : float, optional
        Micrometres per pixel that the images are resampled to where their own scale is stated; None leaves them as
        they are.

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
    split = split_images(folder, tuple(pairs), options)
    used = [name for name in pairs if name in split.parts]
    scales = scales_of(folder, split.table, used) if mpp is not None else {}
    loaded: dict[str, list[Annotated]] = {part: [] for part in PARTS}
    for name in used:
        item = load_annotated(*pairs[name])
        if mpp is not None and name in scales:
            item = resampled(item, scales[name], mpp)
        loaded[split.parts[name]].append(item)
    for part in (TRAIN,) if options.train_on_all else PARTS:
        if not loaded[part]:
            raise DataError(
                f"{folder}: the split ({split.source}) leaves no image for {part} of {len(used)} in all; name "
                "them with --split CSV (columns image and split), hold out a --fold, or --train-on-all"
            )
    return Dataset(tuple(loaded[TRAIN]), tuple(loaded[VALIDATION]), split.source)


def load_images(
    folder: Path, mpp: float, shipped: Sequence[Path] = (), wanted: Callable[[str], bool] | None = None
) -> list[Annotated]:
    """Read all images of a folder, or the wanted ones, and resample them to one scale where their own is stated.

    Parameters
    ----------
    folder : Path
        As `load_dataset` reads it.
    mpp : float
        Micrometres per pixel to resample to.
    shipped : sequence of Path
        Tables of known data sets, which may state scales.
    wanted : callable, optional
        Takes an image's name; returns whether to read it.

    Returns
    -------
    list of Annotated
        In the order of the names.

    Raises
    ------
    DataError
        If something is missing, can't be read or does not fit; the message names the file.
    """
    pairs = _matched(folder)
    table = split_images(folder, tuple(pairs), SplitOptions(train_on_all=True, shipped=tuple(shipped))).table
    names = [name for name in pairs if wanted is None or wanted(name)]
    scales = scales_of(folder, table, names)
    items = [load_annotated(*pairs[name]) for name in names]
    return [resampled(item, scales.get(item.name, mpp), mpp) for item in items]


def load_annotated(image: Path, labels: Path) -> Annotated:
    """Read one image and its nuclei.

    Parameters
    ----------
    image : Path
        Any image that Pillow reads; taken as RGB.
    labels : Path
        A label image, or outlines in the image's pixels: GeoJSON (QuPath) or XML (ImageScope, MoNuSeg).

    Raises
    ------
    DataError
        If a file can't be read, sizes differ, or an outline lies outside the image.
    """
    pixels = _read(image)
    numbers = read_labels(labels, (pixels.shape[0], pixels.shape[1]))
    if pixels.shape[:2] != numbers.shape:
        raise DataError(f"{labels}: is {_size(numbers)} but {image.name} is {_size(pixels)}")
    if not labels.name.lower().endswith(OUTLINE_SUFFIXES):
        _check_labels(numbers, labels)
    return Annotated(image.stem, pixels, numbers.astype(np.int32))


def _check_labels(numbers: NDArray[np.generic], path: Path) -> None:
    """Raise `DataError` for numbers that are no labels: negative or huge ones, and masks."""
    least, most = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    if least < 0 or most >= 2**31:
        raise DataError(f"{path}: holds the label {least if least < 0 else most}; labels are from 1 to {2**31 - 1}")
    if most in _MASK_VALUES and not ((numbers != 0) & (numbers != most)).any():
        from nuclix.ext.components import connected_components

        pieces = connected_components(numbers != 0, 8)[1]
        if pieces > 1:
            raise DataError(
                f"{path}: holds the one label {most} in {pieces:,} pieces: a mask, not a label image, in which every "
                "nucleus has its own number. Label its components first, such as with skimage.measure.label"
            )


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
        if not path.name.lower().endswith(suffixes):
            raise DataError(f"{path}: not one of {', '.join(suffixes)}")
        stem = _stem(path)
        if stem in found:
            raise DataError(f"{path}: has the same name as {found[stem].name}")
        found[stem] = path
    if not found:
        raise DataError(f"{folder}: is empty")
    return found


def _stem(path: Path) -> str:
    """Return the name that an image and its labels share: of outlines without the image's suffix, if that is there."""
    outlines = next((suffix for suffix in OUTLINE_SUFFIXES if path.name.lower().endswith(suffix)), None)
    if outlines is None:
        return path.stem
    name = Path(path.name[: -len(outlines)])
    return name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as problem:
        raise DataError(f"{path}: can't be read as an image: {problem}") from problem


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[1]} x {array.shape[0]} px"
