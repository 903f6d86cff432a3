"""Evaluations as text for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nuclix.engine.evaluation.class_scores import ClassScores, mean_class_quality
from nuclix.engine.evaluation.evaluate import Comparison, Evaluation, compare, group_means
from nuclix.engine.evaluation.scores import METRICS, Scores, mean_of

TITLES = {
    "aji": "AJI",
    "aji_disjoint": "AJI (disjoint)",
    "aji_plus": "AJI+",
    "pq": "PQ",
    "dq": "DQ",
    "sq": "SQ",
    "object_precision": "Object precision",
    "object_recall": "Object recall",
    "object_f1": "Object F1",
    "mean_ap": "mAP",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "jaccard": "JI",
    "perf": "Perf",
    "ahd": "AHD [px]",
    "adc": "ADC",
}
HEADLINE = ("aji", "aji_plus", "f1", "pq", "dq", "sq", "mean_ap")  # what a terminal's width holds of an image
_CLASS_METRICS = ("pq", "pq_plus", "f1", "f1_classified")
# The p-values that Fig. 5 of the DIST paper marks.
_STRONG, _WEAK = 0.01, 0.10


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say.

    Attributes
    ----------
    evaluation : Evaluation
        The prediction's scores.
    groups : mapping of str to str
        Each image's group; empty where none were asked for.
    against : Evaluation or None
        The prediction that the first is compared with.
    """

    evaluation: Evaluation
    groups: Mapping[str, str] = field(default_factory=dict)
    against: Evaluation | None = None

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The prediction's scores, then those it is compared with."""
        return (self.evaluation,) if self.against is None else (self.evaluation, self.against)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the files, each once."""
        return tuple(dict.fromkeys(note for evaluation in self.evaluations for note in evaluation.notes))


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str  # image, group, mean or mean of groups
    name: str
    scores: Scores


def _lines(evaluation: Evaluation, groups: Mapping[str, str]) -> list[_Line]:
    lines = [_Line("image", stem, scores) for stem, scores in evaluation.images.items()]
    if groups:
        means = group_means(evaluation.images, groups)
        lines += [_Line("group", name, scores) for name, scores in means.items()]
        lines.append(_Line("mean of groups", "", mean_of(list(means.values()))))
    lines.append(_Line("mean", "", mean_of(list(evaluation.images.values()))))
    return lines


def _number(metric: str, value: float) -> str:
    return f"{value:.2f}" if metric == "ahd" else f"{value:.4f}"


def _stars(p_value: float) -> str:
    return "***" if p_value < _STRONG else "**" if p_value < _WEAK else ""


def _image_table(evaluation: Evaluation, groups: Mapping[str, str]) -> list[list[str]]:
    rows = [["image", *(TITLES[metric] for metric in HEADLINE)]]
    for line in _lines(evaluation, groups):
        label = line.name if line.kind == "image" else " ".join(filter(None, (line.kind, line.name)))
        rows.append([label, *(_number(metric, getattr(line.scores, metric)) for metric in HEADLINE)])
    return rows


def _metric_table(report: Report) -> list[list[str]]:
    rows = [["mean over images", "value"]]
    means = [mean_of(list(evaluation.images.values())) for evaluation in report.evaluations]
    if report.against is None:
        return rows + [[TITLES[metric], _number(metric, getattr(means[0], metric))] for metric in METRICS]
    rows[0] += ["against", "difference", "p", ""]
    for metric, found in compare(report.evaluation, report.against).items():
        values = [getattr(mean, metric) for mean in means]
        numbers = [_number(metric, value) for value in (*values, found.difference)]
        rows.append([TITLES[metric], *numbers, f"{found.p_value:.4g}", _stars(found.p_value)])
    return rows


def _class_table(scores: ClassScores) -> list[list[str]]:
    rows = [["class", "nuclei", "PQ", "PQ+", "F1", "F1 classified"]]
    columns = zip(scores.pq, scores.pq_plus, scores.f1, scores.f1_classified, strict=True)
    for name, nuclei, values in zip(scores.names, scores.nuclei, columns, strict=True):
        rows.append([name, str(nuclei), *("" if math.isnan(value) else f"{value:.4f}" for value in values)])
    return rows


def _class_means(evaluation: Evaluation, groups: Mapping[str, str]) -> list[list[str]]:
    """Return a table of the scores over all classes, mPQ by group (tissue) and over groups too."""
    scores = evaluation.classes
    assert scores is not None
    rows = [["over all classes", "value"]]
    by_group = mean_class_quality(scores, list(evaluation.images), groups)
    rows += [[f"mPQ of group {name}", f"{value:.4f}"] for name, value in by_group.items()]
    if by_group:
        rows.append(["mPQ, mean of groups", f"{sum(by_group.values()) / len(by_group):.4f}"])
    for title, value in (
        ("mPQ, mean over images", scores.mpq),
        ("mPQ+, mean over classes", scores.mpq_plus),
        ("F1, mean over classes", scores.mean_f1),
        ("F1 of detection (centres)", scores.f1_detected),
        ("right class among matched", scores.accuracy),
    ):
        rows.append([title, f"{value:.4f}"])
    return rows


def _confusion_table(scores: ClassScores) -> list[list[str]]:
    rows = [["", *scores.names, "missed"]]
    for name, counts in zip((*scores.names, "false"), scores.confusion.tolist(), strict=True):
        rows.append([name, *map(str, counts)])
    rows[-1][-1] = ""
    return rows


def _classes_document(scores: ClassScores) -> dict[str, Any]:
    by_class = {}
    for k, name in enumerate(scores.names):
        values = {metric: float(getattr(scores, metric)[k]) for metric in _CLASS_METRICS}
        plain = {metric: None if math.isnan(value) else value for metric, value in values.items()}
        by_class[name] = {"nuclei": int(scores.nuclei[k]), **plain}
    means = {name: getattr(scores, name) for name in ("mpq", "mpq_plus", "mean_f1", "f1_detected", "accuracy")}
    return {**means, "classes": by_class, "confusion": scores.confusion.tolist()}


def _rendered(report: Report, table: Callable[[list[list[str]]], str], heading: str) -> str:
    parts = []
    for evaluation in report.evaluations:
        parts.append(f"{heading}{evaluation.prediction} against the truth {evaluation.truth}")
        parts.append(table(_image_table(evaluation, report.groups)))
        if evaluation.classes is not None:
            parts.append(f"{heading}Classes, {len(evaluation.images)} images")
            parts.append(table(_class_table(evaluation.classes)))
            parts.append(table(_class_means(evaluation, report.groups)))
            parts.append(f"{heading}Matched nuclei: truth by row, prediction by column")
            parts.append(table(_confusion_table(evaluation.classes)))
    parts.append(f"{heading}All scores, {len(report.evaluation.images)} images")
    parts.append(table(_metric_table(report)))
    if report.against is not None:
        parts.append(
            "p: one-sided Wilcoxon signed-rank test that the first prediction is better; "
            f"*** p < {_STRONG:g}, ** p < {_WEAK:g}."
        )
    parts.extend(f"note: {note}" for note in report.notes)
    return "\n\n".join(parts) + "\n"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of a head and rows; all columns but the first are aligned to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:]))


def as_text(report: Report) -> str:
    """Return the report in aligned columns: the main scores of each image, then the mean of every score."""
    return _rendered(report, _aligned, "")


def as_markdown(report: Report) -> str:
    """Return the same as Markdown tables."""
    return _rendered(report, markdown_table, "## ")


def as_csv(report: Report) -> str:
    """Return every score of every image, group and mean as CSV with a header; one line each, full precision."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["prediction", "kind", "name", "group", *METRICS])
    for evaluation in report.evaluations:
        for line in _lines(evaluation, report.groups):
            group = report.groups.get(line.name, "") if line.kind == "image" else ""
            values = [repr(getattr(line.scores, metric)) for metric in METRICS]
            writer.writerow([evaluation.prediction, line.kind, line.name, group, *values])
    return file.getvalue()


def as_json(report: Report) -> str:
    """Return everything as JSON; docs/metrics.md describes the members."""
    document = {"titles": TITLES, **_document(report.evaluation, report.groups), "notes": list(report.notes)}
    if report.against is not None:
        tests: Mapping[str, Comparison] = compare(report.evaluation, report.against)
        document["against"] = _document(report.against, report.groups)
        document["wilcoxon"] = {metric: asdict(found) for metric, found in tests.items()}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _document(evaluation: Evaluation, groups: Mapping[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "prediction": str(evaluation.prediction),
        "truth": str(evaluation.truth),
        "mean": asdict(mean_of(list(evaluation.images.values()))),
        "images": {stem: asdict(scores) for stem, scores in evaluation.images.items()},
    }
    if evaluation.classes is not None:
        document["by_class"] = _classes_document(evaluation.classes)
    if groups:
        means = group_means(evaluation.images, groups)
        document["mean_of_groups"] = asdict(mean_of(list(means.values())))
        document["groups"] = {name: asdict(scores) for name, scores in means.items()}
        if evaluation.classes is not None:
            by_group = mean_class_quality(evaluation.classes, list(evaluation.images), groups)
            document["by_class"]["mpq_of_groups"] = by_group
        document["group_of"] = {stem: groups[stem] for stem in evaluation.images}
    return document
