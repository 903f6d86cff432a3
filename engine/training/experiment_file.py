"""What an experiment compares: a TOML file of networks, the ways to turn their maps into nuclei, folds and seeds."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine import registry
from nuclix.engine.errors import PluginError, UsageError
from nuclix.engine.parameters import as_mapping, from_mapping
from nuclix.engine.training.augmentation import NONE, present_names
from nuclix.engine.training.contracts import CustomSchedule
from nuclix.engine.training.schedule import Schedule

if TYPE_CHECKING:
    from nuclix.engine.training.contracts import Recipe

STILL = "none"  # augmentation = "none" leaves patches as they are


@dataclass(frozen=True, slots=True)
class Splitting:
    """One way to turn a network's maps into nuclei.

    Attributes
    ----------
    name : str
        Its name in the tables.
    postprocessor : str
        Default: the recipe's.
    grid : mapping of str to list
        Values to choose from for each of the post-processor's parameters, every combination of them; the first of each
        is used where nothing can be chosen. Empty takes the recipe's candidates.
    """

    name: str
    postprocessor: str = ""
    grid: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a way of splitting needs a name")
        if any(not isinstance(values, list) or not values for values in self.grid.values()):
            raise ValueError("grid: each parameter needs a list of one or more values")

    def candidates(self, recipe: Recipe) -> Sequence[Mapping[str, Any]]:
        """Return the parameters to choose from."""
        if not self.grid:
            return recipe.candidates()
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True, slots=True)
class Network:
    """One network of an experiment.

    Attributes
    ----------
    name : str
        Its name in the tables.
    recipe : str
        The method.
    set : mapping
        The recipe's hyper-parameters.
    schedule : mapping
        Training settings that differ from the experiment's (fields of `Schedule`).
    splittings : tuple of Splitting
        Default: one, named as the network, with the recipe's post-processor and candidates.
    """

    name: str
    recipe: str
    set: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    splittings: tuple[Splitting, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or any(sign in self.name for sign in "/\\\0\n"):
            raise ValueError(f"the name {self.name!r} can't name a folder of results")

    @property
    def ways(self) -> tuple[Splitting, ...]:
        """The ways to turn its maps into nuclei, at least one."""
        return self.splittings or (Splitting(self.name),)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A grid of networks x seeds x folds on one data set.

    Attributes
    ----------
    title : str
        Heads the tables.
    networks : tuple of Network
        What is compared.
    data : str
        Folder of annotated images, relative to the file; may be given on the command line instead.
    folds : int
        Folds that groups of images are dealt to; 2 or more.
    folds_file : str
        CSV with the columns image and fold, in place of dealing; relative to the file.
    groups_file : str
        CSV with the columns image and group, relative to the file; default: the data folder's ``groups.csv``.
    images : str
        Shell pattern of the images that take part, such as ``he_*``.
    seeds : tuple of int
        Of first weights and batches.
    baseline : str
        Name of the way of splitting that the others are tested against; default: the first.
    schedule : mapping
        Training settings of every network (fields of `Schedule`; seed excepted).
    """

    title: str
    networks: tuple[Network, ...]
    data: str = ""
    folds: int = 4
    folds_file: str = ""
    groups_file: str = ""
    images: str = "*"
    seeds: tuple[int, ...] = (0, 1)
    baseline: str = ""
    schedule: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.networks or not self.seeds:
            raise ValueError("needs at least one network and one seed")
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, not {self.folds}")
        for what, names in (("network", [item.name for item in self.networks]), ("splitting", self.ways)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"two {what}s have the name {twice!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice")
        if self.baseline and self.baseline not in self.ways:
            raise ValueError(f"baseline must be one of {', '.join(self.ways)}, not {self.baseline!r}")

    @property
    def ways(self) -> list[str]:
        """The names of all ways of splitting, in the order of the file."""
        return [way.name for network in self.networks for way in network.ways]

    @property
    def reference(self) -> str:
        """The way of splitting that the others are tested against."""
        return self.baseline or self.ways[0]


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Parameters
    ----------
    path : Path
        TOML with the fields of `Experiment`, ``[[networks]]`` with those of `Network` and ``[[networks.splittings]]``
        with those of `Splitting`.

    Raises
    ------
    UsageError
        If the file can't be read, or a key or value is wrong; the message names it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(f"{path}: can't be read as TOML: {problem}") from problem
    experiment = from_mapping(Experiment, content, str(path), UsageError)
    for network in experiment.networks:
        made = recipe_of(network, path)
        schedule_of(experiment, network, made, 0, path)
        for way in network.ways:
            kind = postprocessor_kind(way, made, path)
            for parameters in way.candidates(made):
                from_mapping(kind, parameters, f"{path}, splitting {way.name}", UsageError)
    return experiment


def recipe_of(network: Network, path: Path) -> Recipe:
    """Return a network's recipe with its hyper-parameters; raise `UsageError` where they are wrong."""
    kind = _plugin(registry.RECIPES, network.recipe, path)
    recipe: Recipe = from_mapping(kind, network.set, f"{path}, network {network.name}, set", UsageError)
    return recipe


def postprocessor_kind(way: Splitting, recipe: Recipe, path: Path) -> Any:
    """Return the class of a way's post-processor; raise `UsageError` if it takes other maps than the network has."""
    name = way.postprocessor or recipe.postprocessor
    kind = _plugin(registry.POSTPROCESSORS, name, path)
    if len(kind.maps) != len(recipe.maps):
        raise UsageError(
            f"{path}, splitting {way.name}: {name} takes {len(kind.maps)} map(s), the network has {len(recipe.maps)}"
        )
    return kind


def _plugin(group: str, name: str, path: Path) -> Any:
    try:
        return registry.load(group, name)
    except PluginError as problem:
        raise UsageError(f"{path}: {problem}") from problem


def schedule_of(experiment: Experiment, network: Network, recipe: Recipe, seed: int, path: Path) -> Schedule:
    """Return how a network is trained: its settings, else the experiment's, else the recipe's, else the usual ones."""
    settings = dict(recipe.schedule()) if isinstance(recipe, CustomSchedule) else {}
    views = dict(settings.pop("augmentation", {}))
    for given in (experiment.schedule, network.schedule):
        own = dict(given)
        change = own.pop("augmentation", {})
        views = as_mapping(NONE) if change == STILL else {**views, **present_names(change)}
        settings.update(own)
    settings["augmentation"] = views
    where = f"{path}, network {network.name}, schedule"
    if "seed" in settings:
        raise UsageError(f"{where}: leave seed out; the experiment's seeds are in its list `seeds`")
    return from_mapping(Schedule, {**settings, "seed": seed}, where, UsageError)
