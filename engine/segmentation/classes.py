"""Classes of nuclei: votes of a network's class maps, and classes renamed or merged by a file."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import ModelCard, ObjectClass, PostProcessor
from nuclix.engine.errors import ModelError, UsageError
from nuclix.engine.parameters import from_mapping
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.detections import DetectsObjects, ScoresObjects
from nuclix.engine.segmentation.objects import PROBABILITY, Objects
from nuclix.ext.label_sums import label_sums

CHANNELS = "channels"
INDEX = "index"


@dataclass(frozen=True, slots=True)
class ClassRule:
    """How class maps are read.

    Attributes
    ----------
    count : int
        Number of classes.
    form : str
        channels: a map for each class, of which the largest counts; index: one map of whole numbers, where k is the
        k-th class and 0 none.
    background : bool
        Whether a map of the background comes before those of the classes.
    """

    count: int
    form: str = CHANNELS
    background: bool = False


def class_rule(card: ModelCard, where: str) -> ClassRule | None:
    """Return how a model's class maps are read, or None where it has none.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    where : str
        The model, for messages.

    Raises
    ------
    ModelError
        If there are neither as many class maps as classes, nor one more (the background, first), nor a single one.
    """
    maps, count = len(card.class_maps), len(card.classes)
    if not maps:
        return None
    if maps == count + 1 and card.class_maps[0] in (item.name for item in card.classes):
        raise ModelError(
            f"{where}: the first of {maps} class_maps would be the background, as there are {count} classes, but "
            f"{card.class_maps[0]!r} is a class: list every class, or name the background's map first"
        )
    if maps in (count, count + 1):
        return ClassRule(count, CHANNELS, maps > count)
    if maps == 1:
        return ClassRule(count, INDEX)
    raise ModelError(
        f"{where}: has {maps} class_maps for {count} classes; give one map for each class, in their order, one of the "
        "background before them, or a single map of class numbers (1 is the first class)"
    )


def check_classes(card: ModelCard, post: PostProcessor, where: str) -> None:
    """Raise `ModelError` if a model has several classes and nothing that tells them apart."""
    if len(card.classes) > 1 and not card.class_maps and not isinstance(post, DetectsObjects):
        names = ", ".join(item.name for item in card.classes)
        raise ModelError(
            f"{where}: has the classes {names}, but neither class_maps nor a post-processor that gives classes: "
            "every nucleus would be the first. Name the class maps among the network's outputs, or leave one class"
        )


def vote(labels: NDArray[np.int32], maps: NDArray[np.float32], rule: ClassRule) -> NDArray[np.int32]:
    """Return the class of each nucleus by the majority of its pixels; of equal numbers, the class that comes first.

    Pixels of the background do not vote, unless a nucleus has no others: then each votes for its most likely class
    (for the first one where maps are numbers).

    Parameters
    ----------
    labels : (H, W) int32
        0 is background.
    maps : (channels, H, W) float32
        Class maps; a value that is not a number is less than all others.
    rule : ClassRule
        How they are read.

    Returns
    -------
    (N,) int32
        Index of the class of each label, in the order of `label_outlines`.
    """
    inside = labels > 0
    values = maps[:, inside]
    if rule.form == INDEX:
        numbers = np.nan_to_num(values[0], nan=0.0, posinf=0.0, neginf=0.0)
        choice = np.rint(numbers).astype(np.int64) - 1
        choice[choice >= rule.count] = -1
    else:
        values = np.where(np.isnan(values), -np.inf, values)
        choice = values.argmax(axis=0) - int(rule.background)
    counts = _counts(labels, inside, choice, rule.count)
    undecided = counts.sum(axis=0) == 0
    if undecided.any() and rule.background:
        again = values[1:].argmax(axis=0)
        counts = np.where(undecided, _counts(labels, inside, again, rule.count), counts)
    return counts.argmax(axis=0).astype(np.int32)


def _counts(
    labels: NDArray[np.int32], inside: NDArray[np.bool_], choice: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return the (classes, N) numbers of pixels that voted for each class."""
    votes = np.full(labels.shape, -1, np.int64)
    votes[inside] = choice
    return np.stack([label_sums(labels, (votes == k).astype(np.float32)) for k in range(count)])


@dataclass(frozen=True, slots=True)
class FoundNuclei:
    """The nuclei of an array.

    Attributes
    ----------
    labels : (H, W) int32
        0 is background.
    scores : (N,) float64 or None
        Score of each nucleus, in the order of `label_outlines`; None where the mean of the score map is meant.
    classes : (N,) int32 or None
        Class of each; None where all are of the first.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float64] | None = None
    classes: NDArray[np.int32] | None = None


def with_found(objects: Objects, found: FoundNuclei) -> Objects:
    """Return the objects of `found.labels` with its scores and classes."""
    measurements = dict(objects.measurements)
    if found.scores is not None:
        measurements[PROBABILITY] = np.clip(np.nan_to_num(found.scores, nan=0.0), 0.0, 1.0)
    classes = objects.classes if found.classes is None else found.classes
    return replace(objects, classes=classes, measurements=measurements)


def find_nuclei(
    post: PostProcessor, maps: NDArray[np.float32], mask: NDArray[np.bool_], rule: ClassRule | None
) -> FoundNuclei:
    """Label the nuclei of clumps, with the classes and scores that the post-processor or class maps give.

    Parameters
    ----------
    post : PostProcessor
        From maps to nuclei.
    maps : (channels, H, W) float32
        The post-processor's maps, then the class maps.
    mask : (H, W) bool
        The clumps.
    rule : ClassRule or None
        How class maps are read; they go before the post-processor's classes.

    Returns
    -------
    FoundNuclei
    """
    own = maps[: len(post.maps)]
    scores = classes = None
    if isinstance(post, DetectsObjects):
        found = post.detect(own, mask)
        labels = found.labels
        names = _labels_in_order(labels) - 1
        scores = None if found.scores is None else np.asarray(found.scores, np.float64)[names]
        classes = None if found.classes is None else np.asarray(found.classes, np.int32)[names]
    else:
        labels = post.split(own, mask)
        given = post.object_scores(own, labels) if isinstance(post, ScoresObjects) else None
        scores = None if given is None else np.asarray(given, np.float64)[_labels_in_order(labels) - 1]
    if rule is not None:
        classes = vote(labels, maps[len(post.maps) :], rule)
    return FoundNuclei(labels, scores, classes)


def _labels_in_order(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the labels in the order of `label_outlines`."""
    pixels = label_sums(labels, np.ones(labels.shape, np.float32))
    return np.rint(label_sums(labels, labels) / np.maximum(pixels, 1)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClassMapping:
    """Classes as they are written, made from a model's.

    Attributes
    ----------
    classes : tuple of ObjectClass
        Those that are written.
    table : (K,) int32
        The index among them of each of the model's classes.
    """

    classes: tuple[ObjectClass, ...]
    table: NDArray[np.int32]

    def apply(self, objects: Objects) -> Objects:
        """Return objects of the model's classes as objects of those that are written."""
        return replace(objects, classes=self.table[objects.classes])

    def named(self, counts: NDArray[np.int64]) -> dict[str, int]:
        """Return the counts of the classes that are written by their names."""
        return {item.name: int(count) for item, count in zip(self.classes, counts, strict=True)}


@dataclass(frozen=True, slots=True)
class Classes:
    """How class maps are read (None: there are none), and what becomes of the model's classes."""

    rule: ClassRule | None
    mapping: ClassMapping


def prepare_classes(card: ModelCard, post: PostProcessor, config: RunConfig, where: str) -> Classes:
    """Return how a run treats a model's classes.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    post : PostProcessor
        Its post-processor.
    config : RunConfig
        The options of the run.
    where : str
        The model, for messages.

    Raises
    ------
    ModelError
        If class maps and classes do not fit each other, or test-time augmentation would average class numbers.
    UsageError
        If the class map can't be used.
    """
    check_classes(card, post, where)
    rule = class_rule(card, where)
    if rule is not None and rule.form == INDEX and config.tta:
        raise ModelError(f"{where}: its class map holds numbers, which --tta can't average; run without it")
    mapping = read_class_map(Path(config.class_map), card.classes) if config.class_map else None
    return Classes(rule, mapping or identity_mapping(card.classes))


def identity_mapping(classes: Sequence[ObjectClass]) -> ClassMapping:
    """Return the mapping that leaves a model's classes as they are."""
    return ClassMapping(tuple(classes), np.arange(len(classes), dtype=np.int32))


def read_class_map(path: Path, classes: Sequence[ObjectClass]) -> ClassMapping:
    """Read a file that renames, merges or recolours a model's classes.

    The TOML file has a table for each class that changes, named after it, with a new ``name``, a new ``color`` or both;
    classes that are given one name become one, with the color that one of them is given, else that of the first.

    Parameters
    ----------
    path : Path
        The file.
    classes : sequence of ObjectClass
        The model's classes.

    Returns
    -------
    ClassMapping

    Raises
    ------
    UsageError
        If the file can't be read, names a class that the model does not have, or gives one class two colors.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: the class map can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: the class map is not TOML: {error}") from error
    if not values:
        raise UsageError(f"{path}: the class map is empty; give a table for each class that changes, such as [Class]")
    known = [item.name for item in classes]
    for name in values:
        if name not in known:
            raise UsageError(f"{path}: the model has no class {name!r}; its classes are {', '.join(known)}")
    changes = {name: from_mapping(_Change, value, f"{path}, {name}", UsageError) for name, value in values.items()}
    return _merged(classes, changes, path)


@dataclass(frozen=True, slots=True)
class _Change:
    name: str | None = None
    color: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.name is None and self.color is None:
            raise ValueError("changes nothing: give a name, a color or both")
        if self.name is not None and not (self.name.strip() and self.name.isprintable()):
            raise ValueError(f"name must be a line of text, not {self.name!r}")
        if self.color is not None and not all(0 <= value <= 255 for value in self.color):
            raise ValueError(f"color must be three numbers in 0..255, not {list(self.color)}")


def _merged(classes: Sequence[ObjectClass], changes: Mapping[str, _Change], path: Path) -> ClassMapping:
    names: list[str] = []
    colors: dict[str, tuple[int, int, int]] = {}
    given: set[str] = set()
    table = []
    for item in classes:
        change = changes.get(item.name, _Change(item.name))
        name = item.name if change.name is None else change.name
        if name not in names:
            names.append(name)
            colors[name] = item.color
        if change.color is not None:
            if name in given and colors[name] != change.color:
                raise UsageError(f"{path}: gives the class {name!r} two colors")
            colors[name] = change.color
            given.add(name)
        table.append(names.index(name))
    return ClassMapping(tuple(ObjectClass(name, colors[name]) for name in names), np.array(table, np.int32))


def class_map_hash(path: str | None) -> dict[str, Any]:
    """Return what results depend on of a class map: its content, under the option's name; nothing without one.

    Raises
    ------
    UsageError
        If the file can't be read.
    """
    if path is None:
        return {}
    try:
        return {"class_map": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    except OSError as error:
        raise UsageError(f"{path}: the class map can't be read: {error.strerror}") from error
