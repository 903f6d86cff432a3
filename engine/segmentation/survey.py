"""What is found out about a slide besides its nuclei: thumbnail, focus, stain, colours; while the network computes."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nuclix.engine.errors import DataError
from nuclix.engine.run_config import NORMALISATIONS
from nuclix.engine.segmentation.hooks import Progress, RunHooks
from nuclix.engine.segmentation.measure import MeasurementSettings
from nuclix.engine.slide.tissue import Overview, TissueMask
from nuclix.engine.slide.view import SlideView

if TYPE_CHECKING:
    from nuclix.engine.segmentation.doubts import SlideColours
    from nuclix.engine.segmentation.slide_stains import SlideStains
    from nuclix.engine.slide.normalise import Normaliser
    from nuclix.engine.slide.quality import SlideQuality
    from nuclix.engine.slide.samples import TissueSamples

# Pixels. The survey takes some 50 bytes for each, on top of what the network needs; slides of this size (16 x 16 mm)
# take so long that a second does not matter.
LARGE_OVERVIEW = 1 << 22


@dataclass(frozen=True, slots=True)
class SurveyInputs:
    """What a survey looks at.

    Attributes
    ----------
    view : SlideView
        The slide at the model's scale.
    overview : Overview or None
        The slide at low resolution.
    tissue : TissueMask or None
        Where tissue is; None for everywhere.
    measurements : MeasurementSettings
        Of the run.
    normalisation : str
        Method of stain normalisation.
    thumbnail : Path
        Where the picture goes.
    """

    view: SlideView
    overview: Overview | None
    tissue: TissueMask | None
    measurements: MeasurementSettings
    normalisation: str
    thumbnail: Path

    @property
    def comes_first(self) -> bool:
        """Whether the network must wait: for colours that it needs, or for the memory of a large overview."""
        estimated = self.measurements.estimate_stains and self.measurements.needs_pixels
        large = self.overview is not None and self.overview.pixels[..., 0].size > LARGE_OVERVIEW
        return large or estimated or self.normalisation != NORMALISATIONS[0]


@dataclass(frozen=True, slots=True)
class SurveyResult:
    """The result of a survey.

    Attributes
    ----------
    quality : SlideQuality
        Focus, stain, ink and dust.
    stains : SlideStains
        How the slide is measured.
    normalise : callable or None
        Stain normalisation of what the network sees.
    said : list of str
        What the user should know of the normalisation.
    colours : SlideColours or None
        None where there is no overview.
    thumbnail_seconds : float
        Time that the picture took.
    """

    quality: SlideQuality
    stains: SlideStains
    normalise: Normaliser | None
    said: list[str]
    colours: SlideColours | None
    thumbnail_seconds: float


class Survey:
    """A survey on a thread of its own, once the network has its first tiles; the slide is not read after the context.

    Parameters
    ----------
    inputs : SurveyInputs
        What it looks at.

    Attributes
    ----------
    measurements : MeasurementSettings
        With the slide's own stain vectors, where they are estimated.
    normalise : callable or None
        Stain normalisation of what the network sees.

    Raises
    ------
    SlideError, OutputError
        Where the network must wait for the survey: as `result`.
    """

    def __init__(self, inputs: SurveyInputs) -> None:
        self.measurements = inputs.measurements
        self.normalise: Normaliser | None = None
        self._inputs: SurveyInputs | None = inputs
        self._pool = ThreadPoolExecutor(1, "nuclix-survey")
        self._result: Future[SurveyResult] = Future()
        if inputs.comes_first:
            found = self.result()
            self.measurements, self.normalise = found.stains.settings, found.normalise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def _begun(self) -> Future[SurveyResult]:
        """Return the survey, which is started where it was not."""
        if self._inputs is not None:
            self._result, self._inputs = self._pool.submit(_survey, self._inputs), None
        return self._result

    def watched(self, hooks: RunHooks) -> RunHooks:
        """Return hooks that start the survey when there are maps, and raise what it has raised."""

        def on_progress(progress: Progress) -> None:
            if progress.tiles and self._begun().done():
                self.result()
            hooks.on_progress(progress)

        return replace(hooks, on_progress=on_progress)

    def result(self) -> SurveyResult:
        """Wait for the result.

        Raises
        ------
        SlideError
            If the slide's file is damaged.
        OutputError
            If the thumbnail can't be written.
        """
        return self._begun().result()


def _survey(inputs: SurveyInputs) -> SurveyResult:
    from nuclix.engine.segmentation.doubts import slide_colours
    from nuclix.engine.segmentation.slide_stains import slide_stains
    from nuclix.engine.slide.quality import slide_quality
    from nuclix.engine.slide.samples import tissue_samples
    from nuclix.engine.slide.thumbnail import thumbnail, write_thumbnail

    started = time.perf_counter()
    view, overview, tissue = inputs.view, inputs.overview, inputs.tissue
    write_thumbnail(inputs.thumbnail, thumbnail(view.reader, overview))
    seconds = time.perf_counter() - started
    colours = slide_colours(overview, tissue) if overview is not None and tissue is not None else None
    samples = tissue_samples(view.reader, view, tissue)
    quality = slide_quality(samples, overview, tissue)
    normalise, said = _normaliser(inputs.normalisation, samples)
    return SurveyResult(quality, slide_stains(inputs.measurements, samples.pixels), normalise, said, colours, seconds)


def _normaliser(method: str, samples: TissueSamples) -> tuple[Normaliser | None, list[str]]:
    """Return the stain normalisation of a slide, or None; and what the user should know of it."""
    from nuclix.engine.slide.normalise import stain_normaliser, stain_profile

    if method == NORMALISATIONS[0]:
        return None, []
    try:
        return stain_normaliser(method, stain_profile(samples.pixels)), []
    except DataError as error:
        return None, [f"the stain was not normalised: {error}"]
