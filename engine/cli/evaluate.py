"""``nuclix evaluate``: score predictions against the truth."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.cli.former_names import add_former_name
from nuclix.engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from nuclix.engine.evaluation.tables import Report

DESCRIPTION = """\
Score predictions against the truth: folders whose files are matched by name, or two files. Label images (PNG, TIFF,
npy; 0 is background) and GeoJSON (.geojson, .geojson.gz, .zip) may be mixed. Prints the main scores of every image and
the mean of all: AJI, AJI+, PQ, DQ, SQ, object and pixel F1, precision, recall, accuracy, JI, Perf, mAP, AHD and ADC.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score predictions against the truth",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prediction", metavar="PRED", type=Path, help="predictions: a folder or a file")
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="the truth: a folder or a file")
    parser.add_argument(
        "--downsample",
        metavar="FACTOR",
        type=_positive,
        default=1.0,
        help="level-0 pixels of GeoJSON along one pixel of the label images (default: 1)",
    )
    add_former_name(parser, "pixel", "downsample", _positive)
    parser.add_argument(
        "--classes",
        action="store_true",
        help="score classes too (mPQ, mPQ+, F1 by class, confusion matrix): GeoJSON's classifications, or "
        "NAME.classes.csv (LABEL,CLASS) or NAME.classes.png (class numbers) next to a label image",
    )
    parser.add_argument("--groups", metavar="CSV", type=Path, help="lines IMAGE,GROUP: mean by organ or patient too")
    parser.add_argument(
        "--against", metavar="PRED2", type=Path, help="test whether PRED is better than PRED2 (Wilcoxon signed-rank)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every score as JSON")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write every score as CSV")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables as Markdown")
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="plot the distribution of nucleus sizes (.png, .svg, .pdf)"
    )
    parser.set_defaults(command=run)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def run(args: argparse.Namespace) -> int:
    """Score, print, write the files that were asked for; return 0."""
    from nuclix.engine.evaluation import tables as score_report
    from nuclix.engine.evaluation.evaluate import evaluate, read_groups
    from nuclix.engine.evaluation.plots import check_plotting

    if args.plot is not None:
        check_plotting(args.plot)
    for path in (args.json, args.csv, args.markdown, args.plot):
        if path is not None and not path.parent.is_dir():
            raise OutputError(f"{path} can't be written: {path.parent} is no folder")
        if path is not None and path.exists() and path.resolve() in (args.prediction.resolve(), args.truth.resolve()):
            raise UsageError(f"{path}: is an input, which would be overwritten; name another file")
    evaluation = evaluate(args.prediction, args.truth, args.downsample, args.classes)
    report = score_report.Report(
        evaluation,
        groups={} if args.groups is None else read_groups(args.groups, list(evaluation.images)),
        against=None if args.against is None else evaluate(args.against, args.truth, args.downsample, args.classes),
    )
    print(score_report.as_text(report), end="")
    for path, written in (
        (args.json, score_report.as_json),
        (args.csv, score_report.as_csv),
        (args.markdown, score_report.as_markdown),
    ):
        if path is not None:
            _write(path, written(report).encode())
    if args.plot is not None:
        _write(args.plot, _plot(report, args.plot.suffix))
    return 0


def _plot(report: Report, suffix: str) -> bytes:
    from nuclix.engine.evaluation.plots import plot_sizes

    samples = {"truth": report.evaluation.truth_areas}
    for evaluation in report.evaluations:
        name = str(evaluation.prediction)
        samples[name if name not in samples else f"{name} (prediction)"] = evaluation.prediction_areas
    return plot_sizes(samples, suffix)


def _write(path: Path, content: bytes) -> None:
    from nuclix.engine.files import write_output

    try:
        write_output(path, content)
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from error
