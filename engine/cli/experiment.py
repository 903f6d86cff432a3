"""``nuclix experiment``: compare networks by cross-validation over several seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import UsageError

if TYPE_CHECKING:
    from nuclix.engine.training.experiment import Bench, Cell, CellResult
    from nuclix.engine.training.experiment_file import Experiment
    from nuclix.engine.training.log import Progress

REPORT_EVERY = 500  # steps between two lines of a run's progress


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "experiment",
        help="compare recipes by cross-validation",
        description="Train every network of a TOML file with every seed on every fold, and write one table of scores. "
        "The same command resumes an interrupted experiment.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="what to compare (docs/experiments)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="annotated images, in place of the file's `data`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for checkpoints and tables")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--list", action="store_true", help="list the runs and which are finished; train nothing")
    parser.set_defaults(command=experiment_command)


def experiment_command(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from nuclix.engine.training.experiment import Bench, run_experiment
    from nuclix.engine.training.experiment_file import read_experiment
    from nuclix.engine.training.experiment_table import write_tables

    experiment = read_experiment(args.file)
    if args.data is None and not experiment.data:
        raise UsageError(f"{args.file}: names no data; give the folder with --data")
    data = args.data or args.file.parent / experiment.data
    bench = Bench(args.file, data, args.out, args.device)
    if args.list:
        return _list(experiment, bench)
    if args.threads is not None:
        import torch

        torch.set_num_threads(max(1, args.threads))
    results: list[CellResult] = []
    for result in run_experiment(experiment, bench, _shipped(experiment, bench), _report):
        results.append(result)
        write_tables(experiment, results, args.out)
    return _finish(experiment, results, args.out)


def _finish(experiment: Experiment, results: list[CellResult], out: Path) -> int:
    """Print the table and draw the plot."""
    from nuclix.engine.training.experiment_plot import write_plot
    from nuclix.engine.training.experiment_table import SUMMARY_MD, crossfitted, markdown, summaries

    table = summaries(experiment, results)
    print(markdown(experiment, table), end="")
    try:
        drawn = f" and {write_plot(experiment, table, crossfitted(results), out).name}"
    except ImportError:
        drawn = "; no plot: install it with pip install matplotlib"
    print(f"wrote {out / SUMMARY_MD}{drawn}")
    return 0


def _shipped(experiment: Experiment, bench: Bench) -> list[Path]:
    """Return the tables of known data sets that come with the recipes."""
    from nuclix.engine.cli.train import shipped_tables
    from nuclix.engine.training.experiment_file import recipe_of

    kinds = {type(recipe_of(network, bench.path)) for network in experiment.networks}
    return sorted({path for kind in kinds for path in shipped_tables(kind)})


def _list(experiment: Experiment, bench: Bench) -> int:
    """Print every run and whether it is finished."""
    from nuclix.engine.training.experiment import RECORD, cells

    runs = list(cells(experiment, experiment.folds))
    for cell in runs:
        state = "finished" if (cell.folder(bench.out) / RECORD).exists() else "to do"
        print(f"{cell.network.name}, seed {cell.seed}, fold {cell.fold}/{experiment.folds}: {state}")
    return 0


def _report(cell: Cell, progress: Progress | None) -> None:
    """Print where a run stands."""
    where = f"{cell.network.name}, seed {cell.seed}, fold {cell.fold}"
    if progress is None:
        print(where, flush=True)
    elif progress.step % REPORT_EVERY == 0:
        print(f"{where}: step {progress.step} of {progress.steps}, loss {progress.loss:.4f}", flush=True)
