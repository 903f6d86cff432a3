"""``nuclix train``: train a recipe on annotated images and write a model file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.cli.former_names import add_former_name
from nuclix.engine.errors import UsageError

if TYPE_CHECKING:
    from nuclix.engine.contracts import ModelCard
    from nuclix.engine.training.contracts import Recipe
    from nuclix.engine.training.dataset import Dataset
    from nuclix.engine.training.loop import Place
    from nuclix.engine.training.schedule import Schedule
    from nuclix.engine.training.splits import SplitOptions
    from nuclix.engine.training.state import TrainingState

OPTIONS = (
    ("steps", int, "N", "batches in all"),
    ("batch", int, "N", "patches a batch"),
    ("patch", int, "PX", "edge of a patch"),
    ("learning-rate", float, "RATE", "peak learning rate"),
    ("decay", float, "FACTOR", "of the learning rate every --decay-every steps, in place of a cosine"),
    ("decay-every", int, "STEPS", "see --decay"),
    ("min-learning-rate", float, "RATE", "the rate does not fall below it"),
    ("freeze-encoder", int, "STEPS", "keep the encoder's weights for so many steps"),
    ("weight-decay", float, "LAMBDA", "decoupled weight decay"),
    ("warmup", int, "STEPS", "over which the learning rate rises to its peak"),
    ("average", float, "DECAY", "of the moving average of the weights; 0 keeps the last weights"),
    ("early-stopping", int, "N", "stop after N validations without a lower loss and keep the weights of the lowest"),
    ("seed", int, "N", "of the first weights and of every batch"),
    ("precision", str, "TYPE", "auto, float32, bfloat16 or float16"),
)

RELIABILITY = "reliability.svg"
STILL = "none"  # what --augment says to leave patches as they are


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a recipe on annotated images",
        description="Train a recipe on a folder of annotated images and write a model file.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="method, such as dist (see `nuclix plugins`)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with images/ and labels/")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model file to write (.pt)")
    _add_split_options(parser)
    parser.add_argument("--extra-data", type=Path, metavar="DIR", help="another such folder, to train on as well")
    parser.add_argument("--extra-names", default="*", metavar="PATTERN", help="which of its images, such as 'he_*'")
    parser.add_argument(
        "--extra-share", type=_share, default=0.25, metavar="P", help="part of the patches (%(default)s)"
    )
    for name, kind, metavar, text in OPTIONS:
        names = ("--learning-rate", "--lr") if name == "learning-rate" else (f"--{name}",)
        parser.add_argument(*names, type=kind, metavar=metavar, help=text)
    parser.add_argument("--n-feat", type=int, metavar="N", help="features of the first convolution")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a recipe's hyper-parameter")
    parser.add_argument(
        "--augment", action="append", default=[], metavar="NAME=VALUE", help="strength of a variation, or none"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--validate-every", type=int, default=1000, metavar="STEPS", help="(%(default)s)")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint of an interrupted run")
    parser.add_argument("--init-from", type=Path, metavar="FILE", help="checkpoint or model to start from")
    parser.add_argument(
        "--encoder-weights",
        type=Path,
        metavar="FILE",
        help="state dict of a VGG16-BN, ResNet-34 or Xception for the encoder (.safetensors or torch.save)",
    )
    parser.add_argument("--num-workers", type=int, default=0, metavar="N", help="processes that draw batches (0)")
    parser.add_argument(
        "--interpolate", type=_share, metavar="P", help="average the weights with those of --init-from, which count P"
    )
    parser.add_argument(
        "--leave-one-out", action="store_true", help="in place of a model: hold out each patient in turn and score it"
    )
    parser.add_argument("--patients", type=Path, metavar="CSV", help="each image's patient (default: by TCGA barcode)")
    parser.add_argument("--patient-column", default="patient", metavar="NAME", help="of that CSV (%(default)s)")
    parser.add_argument("--licence", default="not stated", metavar="TEXT", help="of the data, for the model's card")
    add_former_name(parser, "extra", "extra_data", Path)
    add_former_name(parser, "start", "init_from", Path)
    add_former_name(parser, "blend", "interpolate", _share)
    add_former_name(parser, "patience", "early_stopping", int)
    parser.set_defaults(command=train_command)


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which images validate")
    group.add_argument("--split", type=Path, metavar="CSV", help="columns image and split (train or validation)")
    group.add_argument(
        "--groups", type=Path, metavar="CSV", help="columns image and group; a group is held out whole (DIR/groups.csv)"
    )
    group.add_argument("--fold", metavar="I/K", help="hold out fold I of K, such as 1/4")
    group.add_argument(
        "--folds", type=Path, metavar="CSV", help="columns image and fold, for --fold (default: assigned by group)"
    )
    group.add_argument(
        "--train-on-all", action="store_true", help="hold nothing out; the model's card then has no scores"
    )
    group.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the post-processor's, with --train-on-all, from an earlier cross-validation",
    )


def _split_options(args: argparse.Namespace, shipped: list[Path]) -> SplitOptions:
    """Return how the options say the images are split."""
    from nuclix.engine.training.splits import Fold, SplitOptions

    if args.parameter and not args.train_on_all:
        raise UsageError("--parameter is for --train-on-all: otherwise validation images choose the parameters")
    try:
        fold = Fold.parse(args.fold) if args.fold is not None else None
    except ValueError as problem:
        raise UsageError(f"--fold: {problem}") from problem
    return SplitOptions(args.split, args.groups, fold, args.folds, args.train_on_all, tuple(shipped))


def _parameters(args: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's first candidate with what --parameter changes; empty where it changes nothing."""
    from nuclix.engine import registry
    from nuclix.engine.parameters import assignments

    if not args.parameter:
        return {}
    kind: Any = registry.load(registry.POSTPROCESSORS, recipe.postprocessor)
    return {**recipe.candidates()[0], **assignments(args.parameter, kind, f"post-processor {recipe.postprocessor}")}


def _initial(given: Path | None) -> Path | None:
    """Return the file that --init-from names: a checkpoint, a model file, or a model that comes with nuclix."""
    from nuclix.engine.inference.model_file import find_model

    return given if given is None or given.is_file() else find_model(given)


def _place(args: argparse.Namespace, folder: Path) -> Place:
    """Return where the training writes and what it begins with."""
    from nuclix.engine.training.loop import Place

    if args.num_workers < 0:
        raise UsageError(f"--num-workers must be 0 or more, not {args.num_workers}")
    return Place(
        folder,
        args.device,
        args.resume,
        args.validate_every,
        start=_initial(args.init_from),
        encoder_weights=args.encoder_weights,
        num_workers=args.num_workers,
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text}")
    return value


def _check_options(args: argparse.Namespace) -> None:
    """Raise `UsageError` for options that contradict each other or can't be meant."""
    if args.out.suffix != ".pt":
        raise UsageError(f"--out {args.out}: a model file's name ends in .pt")
    if args.interpolate is not None and args.leave_one_out:
        raise UsageError("--interpolate is for one model: leave it out with --leave-one-out")
    if args.interpolate is not None and args.init_from is None:
        raise UsageError("--interpolate averages with the weights of an earlier training run: give it with --init-from")
    if args.validate_every < 1:
        raise UsageError("--validate-every must be 1 or more")


def train_command(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import torch

    from nuclix.engine.training.dataset import load_dataset, with_extra
    from nuclix.engine.training.execution import Execution
    from nuclix.engine.training.export import Provenance, export
    from nuclix.engine.training.loop import kept, train
    from nuclix.engine.training.state import blended

    _check_options(args)
    if args.threads is not None:
        torch.set_num_threads(max(1, args.threads))
    recipe, shipped = _recipe(args)
    schedule = _schedule(args, recipe)
    if schedule.steps <= schedule.warmup:
        print(
            f"warning: --steps {schedule.steps} ends within the warm-up of {schedule.warmup} steps: the learning rate "
            "never reaches its peak; give a smaller --warmup",
            file=sys.stderr,
        )
    mpp = recipe.scale.mpp
    dataset = load_dataset(args.data, _split_options(args, shipped), mpp)
    if args.extra_data is not None:
        dataset = with_extra(dataset, args.extra_data, args.extra_names, args.extra_share, mpp)
    if args.leave_one_out:
        return _leave_one_out(args, recipe, schedule, dataset)
    print(f"{len(dataset.train)} images to train on, {len(dataset.validation)} to validate on: {dataset.split}")
    folder = args.out.with_suffix(".training")
    place = _place(args, folder)
    with TrainingDisplay(schedule.steps) as display:
        state = train(recipe, dataset, schedule, place, display)
    network = kept(state, schedule)
    if args.interpolate is not None:
        network = blended(network, args.init_from, args.interpolate)
    print("choosing the post-processor's parameters")
    data = args.data.resolve().name
    provenance = Provenance(
        args.out.stem, args.recipe, data, args.licence, _settings(args, schedule, state), _parameters(args, recipe)
    )
    execution = Execution.of(args.device, schedule.precision)
    card = export(recipe, network, dataset, execution, provenance, args.out)
    _draw_reliability(card, place.folder / RELIABILITY)
    print(summary(card))
    print(f"wrote {args.out}; log and checkpoint are in {place.folder}")
    return 0


def _settings(args: argparse.Namespace, schedule: Schedule, state: TrainingState) -> dict[str, Any]:
    """Return what the model's card says of the training run."""
    from nuclix.engine.parameters import as_mapping

    return {
        **as_mapping(schedule),
        "steps done": state.step,
        "started from": args.init_from and args.init_from.name,
        "encoder weights": args.encoder_weights and args.encoder_weights.name,
        "interpolate": args.interpolate,
        "seconds": round(state.seconds),
    }


def _draw_reliability(card: ModelCard, path: Path) -> None:
    """Draw how far the calibrated scores of a card are probabilities, if it has them and matplotlib is there."""
    from nuclix.engine.training.plot import can_plot, reliability_plot

    bins = card.training.get("calibrated scores", {}).get("bins")
    if bins and can_plot():
        path.write_bytes(reliability_plot(bins))


def _leave_one_out(args: argparse.Namespace, recipe: Recipe, schedule: Schedule, dataset: Dataset) -> int:
    """Train and score one fold a patient, telling of each and writing the tables as they grow."""
    from nuclix.engine.training.leave_out import (
        folds,
        markdown,
        mean_of_patients,
        patients_by_barcode,
        read_patients,
        score_fold,
        write_tables,
    )

    names = sorted(item.name for item in (*dataset.train, *dataset.validation))
    by_table = args.patients is not None
    patient_of = read_patients(args.patients, args.patient_column, names) if by_table else patients_by_barcode(names)
    parts, rows = folds(dataset, patient_of), []
    folder = args.out.with_suffix(".leave-one-out")
    place = _place(args, folder)
    print(f"{len(names)} images of {len(parts)} patients, each held out in turn")
    for part in parts:
        with TrainingDisplay(schedule.steps) as display:
            rows.append(score_fold(recipe, part, schedule, place, display))
        print(f"{len(rows)} of {len(parts)}, {part.patient}: F1 {rows[-1].f1:.4f}, AJI {rows[-1].aji:.4f}", flush=True)
        paths = write_tables(place.folder, rows)
    print(markdown([*rows, mean_of_patients(rows)]), end="")
    print(f"wrote {paths[0]} and {paths[1].name}")
    return 0


def _recipe(args: argparse.Namespace) -> tuple[Recipe, list[Path]]:
    """Return the recipe with the options' hyper-parameters, and the splits that came with its package."""
    from nuclix.engine import registry
    from nuclix.engine.parameters import assignments, from_mapping

    kind: Any = registry.load(registry.RECIPES, args.recipe)
    where = f"recipe {args.recipe}"
    words = [*args.set, *([f"n_feat={args.n_feat}"] if args.n_feat is not None else [])]
    recipe: Recipe = from_mapping(kind, assignments(words, kind, where), where, UsageError)
    return recipe, shipped_tables(kind)


def shipped_tables(kind: Any) -> list[Path]:
    """Return the tables of known data sets (CSV) in the package of a recipe's class."""
    from importlib.resources import files

    package = files(kind.__module__.rpartition(".")[0] or kind.__module__)
    return sorted(Path(str(item)) for item in package.iterdir() if item.name.endswith(".csv"))


def _schedule(args: argparse.Namespace, recipe: Recipe) -> Schedule:
    """Return the training settings: the options', else the recipe's, else the usual ones."""
    from nuclix.engine.parameters import as_mapping, assignments, from_mapping
    from nuclix.engine.training.augmentation import NONE, Augmentation
    from nuclix.engine.training.contracts import CustomSchedule
    from nuclix.engine.training.schedule import Schedule

    settings = dict(recipe.schedule()) if isinstance(recipe, CustomSchedule) else {}
    names = [name.replace("-", "_") for name, *_ in OPTIONS]
    settings.update({name: getattr(args, name) for name in names if getattr(args, name) is not None})
    views = assignments(_present_words(args.augment), Augmentation, "--augment")
    usual = as_mapping(NONE) if STILL in args.augment else settings.get("augmentation", {})
    settings["augmentation"] = {**usual, **views}
    return from_mapping(Schedule, settings, "nuclix train", UsageError)


def _present_words(words: Sequence[str]) -> list[str]:
    """Return NAME=VALUE words with present names; say which names are former ones."""
    from nuclix.engine.training.augmentation import FORMER_NAMES

    found = []
    for word in words:
        name, separator, value = word.partition("=")
        if name in FORMER_NAMES:
            sys.stderr.write(f"nuclix train: --augment {name} is deprecated; use {FORMER_NAMES[name]}\n")
        if word != STILL:
            found.append(f"{FORMER_NAMES.get(name, name)}{separator}{value}")
    return found


def summary(card: ModelCard) -> str:
    """Return the validation scores of a card as a small table."""
    lines = [f"parameters: {', '.join(f'{key} = {value}' for key, value in card.parameters.items())}"]
    for title, rows in card.scores.items():
        width = max(len(name) for name in rows)
        lines.append(f"{title}:")
        lines.append(f"  {'':{width}}  {'AJI':>6}  {'F1':>6}  {'PQ':>6}")
        for name, row in rows.items():
            lines.append(f"  {name:{width}}  {row['aji']:6.4f}  {row['f1']:6.4f}  {row['pq']:6.4f}")
    return "\n".join(lines)


class TrainingDisplay:
    """Shows a training: a progress bar on a terminal, a line a validation elsewhere.

    Parameters
    ----------
    steps : int
        Of the training.
    """

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, loss="")

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: Any) -> None:
        """Show a `Progress`."""
        self._bar.update(self._task, completed=progress.step, loss=f"loss {progress.loss:.3f}")
        found = progress.validation
        if found is not None:
            scores = found.scores
            self._console.print(
                f"step {progress.step}: loss {progress.loss:.4f}, validation {found.loss:.4f}, "
                f"AJI {scores.aji:.4f}, F1 {scores.f1:.4f}, PQ {scores.pq:.4f}",
                highlight=False,
            )
