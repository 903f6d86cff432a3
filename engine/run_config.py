"""The configuration of a run: every option is declared once, as a field of `RunConfig`.

Command line, TOML file, record and result key are made from these fields.
"""

from __future__ import annotations

import typing
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from nuclix.engine.cpus import usable_cpus
from nuclix.engine.errors import UsageError
from nuclix.engine.option_spec import OptionSpec
from nuclix.engine.parameters import as_mapping

DEFAULT_MODEL = "dist-kumar16"
# Post-processing works best in blocks that are large compared with a nucleus (40 px) and small compared with memory.
DEFAULT_BLOCK = 2048
# Reading a slide of one level whole to find its tissue reports no progress for minutes.
STALL_TIMEOUT = 1800.0
# The format that is chosen by the number of nuclei, and what it stands for: few, many. QuPath reads a plain GeoJSON of
# 200,000 nuclei within 4 GB of heap, half the memory of a small laptop.
AUTO_FORMAT = "auto"
AUTO_FORMATS = ("geojson", "geojson-zip")
LARGE_SLIDE = 200_000
TF32 = "tf32"
INT8 = "int8"
PRECISIONS = ("auto", "float32", TF32, "bfloat16", "float16", INT8)
# Upper bounds: beyond them a slip of the keyboard would take all memory or all day.
MAX_BATCH = 1024
MAX_THREADS = 1024
MAX_RETRIES = 100
# Smaller blocks cost more in calls than in work (64 s a megapixel at 1 px); larger ones gain nothing.
BLOCK_RANGE = (16, 65536)
NORMALISATIONS = ("none", "reinhard", "macenko")
# Cells reach some 5 um beyond their nucleus; far more is a typing error, and its context would fill the memory.
MAX_EXPANSION_UM = 50.0
OUTLINES = ("smooth", "pixel")
MEASUREMENTS = ("shape", "stain", "stain-od")

# Scales outside this range (um/px) are typing errors: light microscopes and their pyramids have none such.
FINEST_MPP, COARSEST_MPP = 0.05, 20.0
_SLIDES = "slides and results"
_MODEL = "model"
_MACHINE = "machine"
_OBJECTS = "outlines and measurements"
_FAULTS = "fault tolerance"
_OUTPUT = "messages"


def default_threads() -> int:
    """Return the number of CPUs that this process may use: by its affinity and its control groups' quotas."""
    return usable_cpus()


def _option(default: Any, spec: OptionSpec) -> Any:
    """Return a field of `RunConfig`."""
    if callable(default):
        return field(default_factory=default, metadata={"option": spec})
    return field(default=default, metadata={"option": spec})


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every option of ``nuclix run``; see `option_specs` for what each means."""

    inputs: tuple[str, ...] = _option((), OptionSpec(_SLIDES, "slides, folders of slides, or glob patterns", "INPUT"))
    out: str | None = _option(None, OptionSpec(_SLIDES, "output folder", "DIR"))
    format: tuple[str, ...] = _option(
        (AUTO_FORMAT,),
        OptionSpec(
            _SLIDES,
            "output formats (see `nuclix plugins`); auto is geojson, or geojson-zip above 200,000 nuclei",
            "NAME,NAME",
            aliases=("writer",),
        ),
    )
    tissue_annotations: bool = _option(
        False, OptionSpec(_SLIDES, "add tissue outlines with their number of nuclei per mm2 to GeoJSON files")
    )
    mpp: float | None = _option(
        None,
        OptionSpec(
            _SLIDES,
            "um/px at full resolution of slides whose file states no scale; others keep theirs",
            "UM",
            minimum=FINEST_MPP,
            maximum=COARSEST_MPP,
        ),
    )
    force_mpp: float | None = _option(
        None,
        OptionSpec(
            _SLIDES,
            "um/px at full resolution of all slides, whatever their files state",
            "UM",
            minimum=FINEST_MPP,
            maximum=COARSEST_MPP,
        ),
    )
    slides: str | None = _option(
        None, OptionSpec(_SLIDES, "CSV of slides: path, and mpp, which is used whatever the file states", "FILE")
    )
    recompute: bool | None = _option(
        None,
        OptionSpec(
            _SLIDES,
            "replace (or keep) finished results of another model, option or slide; with neither, stop and list them",
        ),
    )
    full_hash: bool = _option(
        False,
        OptionSpec(
            _SLIDES,
            "hash every byte of each slide, to notice any change on restart; without it, the places of all tiles and "
            "samples are compared",
        ),
    )
    reader: str | None = _option(
        None,
        OptionSpec(_SLIDES, "slide reader to use for every slide (chosen by content; see `nuclix plugins`)", "NAME"),
    )
    tissue: bool = _option(True, OptionSpec(_SLIDES, "skip background (regions without tissue)", affects_results=True))
    tissue_mask: str | None = _option(
        None,
        OptionSpec(
            _SLIDES,
            "compute the tissue of this mask instead of searching for it: an image of the slide at any size (black is "
            "background) or a GeoJSON file, or a folder with one named after each slide",
            "FILE|DIR",
        ),
    )
    regions: str | None = _option(
        None,
        OptionSpec(
            _SLIDES,
            "segment only the annotations of this GeoJSON file (from QuPath), or of a folder with one per slide",
            "FILE|DIR",
        ),
    )
    region_class: tuple[str, ...] = _option(
        (),
        OptionSpec(
            _SLIDES, "of --regions, take annotations of these classes or names only", "NAME,NAME", affects_results=True
        ),
    )
    region_exclude: tuple[str, ...] = _option(
        (),
        OptionSpec(
            _SLIDES, "of --regions, cut out annotations of these classes or names", "NAME,NAME", affects_results=True
        ),
    )
    region: tuple[str, ...] = _option(
        (),
        OptionSpec(
            _SLIDES,
            "segment only this box, in pixels of the full resolution as QuPath shows them; may be repeated",
            "X,Y,W,H",
            affects_results=True,
            repeated=True,
        ),
    )
    allow_upsampling: bool = _option(
        False,
        OptionSpec(_SLIDES, "segment slides too although they are more than 2.2 times coarser than the model's scale"),
    )
    icc: bool = _option(
        False, OptionSpec(_SLIDES, "convert colours to sRGB by the slide's ICC profile", affects_results=True)
    )
    stain_normalisation: str = _option(
        "none",
        OptionSpec(
            _SLIDES,
            "bring the slide's stain to that of the reference before the network sees it",
            choices=NORMALISATIONS,
            affects_results=True,
        ),
    )
    model: str = _option(DEFAULT_MODEL, OptionSpec(_MODEL, "installed model or model file", "NAME|FILE"))
    precision: str = _option(
        "auto", OptionSpec(_MODEL, "number format of the network", "TYPE", choices=PRECISIONS, affects_results=True)
    )
    runtime: str = _option(
        "auto",
        OptionSpec(
            _MODEL,
            "what computes the network: torch, a model source, or auto: on a CPU openvino where it is installed and "
            "the model file has a network for it, else torch",
            "NAME",
            affects_results=True,
        ),
    )
    tta: bool = _option(
        False,
        OptionSpec(
            _MODEL,
            "test-time augmentation: average the maps of four mirror images, at a quarter of the speed",
            affects_results=True,
            aliases=("flips",),
        ),
    )
    class_map: str | None = _option(
        None, OptionSpec(_MODEL, "TOML file that renames, merges or recolours the model's classes", "FILE")
    )
    set: tuple[str, ...] = _option(
        (),
        OptionSpec(
            _MODEL,
            "value of a parameter of the model's post-processing, such as p2=0.5 (see `nuclix info MODEL`); "
            "may be repeated",
            "NAME=VALUE",
            affects_results=True,
            repeated=True,
        ),
    )
    min_score: float | None = _option(
        None,
        OptionSpec(
            _MODEL, "drop nuclei with a lower detection probability", "P", minimum=0, maximum=1, affects_results=True
        ),
    )
    trust_model: bool = _option(
        False, OptionSpec(_MODEL, "run the model file's program without checking that it only computes (TorchScript)")
    )
    outline: str = _option(
        "smooth",
        OptionSpec(
            _OBJECTS,
            "smooth outlines, or outlines along pixel edges (perimeters 27 % longer)",
            choices=OUTLINES,
            affects_results=True,
        ),
    )
    simplify: float = _option(
        0.5,
        OptionSpec(
            _OBJECTS,
            "simplify smooth outlines within PX pixels at the model's scale",
            "PX",
            minimum=0,
            affects_results=True,
        ),
    )
    keep_holes: bool = _option(
        False,
        OptionSpec(
            _OBJECTS,
            "keep holes in nuclei (with --outline pixel also parts apart) instead of filling them",
            affects_results=True,
        ),
    )
    cell_expansion: float | None = _option(
        None,
        OptionSpec(
            _OBJECTS,
            "make cells: grow nuclei by up to UM micrometres, without overlap",
            "UM",
            above=0,
            maximum=MAX_EXPANSION_UM,
            affects_results=True,
        ),
    )
    measurements: tuple[str, ...] = _option(
        ("shape", "stain"),
        OptionSpec(
            _OBJECTS,
            "shape, stain (hematoxylin and eosin), stain-od (under the names of QuPath's cell detection)",
            "NAME,NAME",
            choices=MEASUREMENTS,
            affects_results=True,
        ),
    )
    stains: tuple[str, ...] = _option(
        (),
        OptionSpec(
            _OBJECTS,
            "stain vectors of hematoxylin and eosin: numbers, default (QuPath's), or estimate (from each slide)",
            "R,G,B,R,G,B",
            affects_results=True,
        ),
    )
    device: str = _option("auto", OptionSpec(_MACHINE, "auto, cpu, cuda, cuda:N or mps (Apple GPU)", "DEVICE"))
    devices: tuple[str, ...] = _option(
        (), OptionSpec(_MACHINE, "one worker process per entry, such as cuda:0,cuda:1 (instead of --device)", "D,D")
    )
    scheduler: str | None = _option(
        None,
        OptionSpec(
            _MACHINE, "address of a Dask scheduler to run on, such as tcp://HOST:8786, instead of local devices", "URL"
        ),
    )
    batch: int | None = _option(
        None, OptionSpec(_MACHINE, "patches per forward pass (chosen by device)", "N", minimum=1, maximum=MAX_BATCH)
    )
    block: int = _option(
        DEFAULT_BLOCK,
        OptionSpec(_MACHINE, "edge of a post-processing block", "PX", minimum=BLOCK_RANGE[0], maximum=BLOCK_RANGE[1]),
    )
    threads: int = _option(
        default_threads,
        OptionSpec(
            _MACHINE,
            "threads for reading and post-processing",
            "N",
            minimum=1,
            maximum=MAX_THREADS,
            aliases=("workers",),
        ),
    )
    retry: int = _option(
        0, OptionSpec(_FAULTS, "retry a failed slide up to N times", "N", minimum=0, maximum=MAX_RETRIES)
    )
    tolerate_damage: int = _option(
        0, OptionSpec(_FAULTS, "show up to N undecodable tiles of a slide as background", "N", minimum=0)
    )
    fail_fast: bool = _option(False, OptionSpec(_FAULTS, "stop the run at the first slide that fails"))
    time_limit: float | None = _option(
        None, OptionSpec(_FAULTS, "stop cleanly within S seconds; the same command resumes", "S", above=0)
    )
    stall_timeout: float = _option(
        STALL_TIMEOUT,
        OptionSpec(_FAULTS, "fail a slide that makes no progress for S seconds", "S", above=0, aliases=("patience",)),
    )
    quiet: bool = _option(False, OptionSpec(_OUTPUT, "report failures only"))
    json_log: str | None = _option(
        None,
        OptionSpec(
            _OUTPUT, "append one JSON object per event to FILE; - writes them to stderr instead of text", "FILE"
        ),
    )

    def __post_init__(self) -> None:
        for spec in option_specs():
            try:
                spec.check(getattr(self, spec.name))
            except ValueError as error:
                raise ValueError(f"key {spec.name!r} {error}") from None

    @property
    def output_folder(self) -> Path:
        """The output folder.

        Raises
        ------
        UsageError
            If the configuration names none.
        """
        if not self.out:
            raise UsageError("no output folder: give --out DIR, or `out` in the configuration")
        return Path(self.out).expanduser()

    def check_complete(self) -> None:
        """Raise `UsageError` if slides or output folder are missing."""
        if not self.inputs and not self.slides:
            raise UsageError(
                "no slides: name files or folders on the command line, or as `inputs` in the configuration"
            )
        _ = self.output_folder


@cache
def option_specs() -> tuple[OptionSpec, ...]:
    """Return every option in the order in which it is listed."""
    hints, specs = typing.get_type_hints(RunConfig), []
    for item in fields(RunConfig):
        inner = [hint for hint in typing.get_args(hints[item.name]) if hint not in (type(None), Ellipsis)]
        kind = typing.get_origin(hints[item.name]) or hints[item.name]
        optional = type(None) in typing.get_args(hints[item.name])
        default = item.default if item.default_factory is MISSING else item.default_factory()
        facts = {"name": item.name, "type": inner[0] if optional else kind, "optional": optional, "default": default}
        specs.append(replace(item.metadata["option"], **facts))
    return tuple(specs)


def result_settings(config: RunConfig) -> dict[str, Any]:
    """Return the options on which results depend, by name."""
    return {spec.name: getattr(config, spec.name) for spec in option_specs() if spec.affects_results}


def config_as_json(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON values."""
    return as_mapping(config)
