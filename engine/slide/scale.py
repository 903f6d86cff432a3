"""The scale of a slide: what its file states, and what the user says of it."""

from __future__ import annotations

from dataclasses import dataclass

from nuclix.engine.contracts import SlideInfo
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Scale
from nuclix.engine.run_config import RunConfig
from nuclix.engine.slide.open import slide_scale

# Values that differ by less than this fraction are the same scale: files round um/px to a few digits.
_TOLERANCE = 0.02
# A slide may be coarser than the model by this factor: 20x slides for models of 40x are usual, 10x are not.
MAX_UPSAMPLING = 2.2


@dataclass(frozen=True, slots=True)
class UserScale:
    """What the user says of a slide's scale.

    Attributes
    ----------
    mpp : float or None
        um/px of the full resolution, or None where nothing is said.
    source : str
        Where it was said: ``--mpp``, ``--force-mpp`` or the name of a table.
    overrules : bool
        Whether it is used although the file states another scale; otherwise it only fills in.
    """

    mpp: float | None = None
    source: str = ""
    overrules: bool = False


@dataclass(frozen=True, slots=True)
class SlideScale:
    """The scale of a slide that is used.

    Attributes
    ----------
    scale : Scale
        At level 0.
    source : str
        Where it comes from: what the file states it in, or the source of the `UserScale` that was used.
    stated : float or None
        um/px that the file states.
    from_user : bool
        Whether it is the user's.
    """

    scale: Scale
    source: str
    stated: float | None
    from_user: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning where a scale was used that contradicts the file."""
        used = self.scale.mpp
        if not self.from_user or self.stated is None or abs(used - self.stated) <= _TOLERANCE * self.stated:
            return ()
        return (
            f"{self.source} sets {used:g} um/px, the file states {self.stated:g} um/px: areas follow {self.source}",
        )


def configured_scale(config: RunConfig) -> UserScale:
    """Return what the options of a run say of the scale of a slide that no table lists."""
    if config.force_mpp is not None:
        return UserScale(config.force_mpp, "--force-mpp", overrules=True)
    return UserScale(config.mpp, "--mpp")


def check_upsampling(info: SlideInfo, scale: Scale, model: Scale, config: RunConfig) -> None:
    """Raise `SlideError` if a slide is far coarser than the model and the options do not allow it.

    Parameters
    ----------
    info : SlideInfo
        The slide.
    scale : Scale
        Its scale at level 0.
    model : Scale
        The model's.
    config : RunConfig
        The options of the run.
    """
    ratio = scale.mpp / model.mpp
    if ratio > MAX_UPSAMPLING and not config.allow_upsampling:
        raise SlideError(
            f"{info.path}: has {scale.mpp:g} um/px, {ratio:.1f} times coarser than the model's {model.mpp:g} um/px; "
            "its nuclei would be guessed. Use a model for this scale, or give --allow-upsampling"
        )


def resolve_scale(info: SlideInfo, user: UserScale) -> SlideScale:
    """Return the scale to use: the user's where it overrules, else the file's, else the user's.

    Parameters
    ----------
    info : SlideInfo
        The slide.
    user : UserScale
        What the user says of it.

    Returns
    -------
    SlideScale

    Raises
    ------
    SlideError
        If neither states a scale, or if it is not one that a microscope has.
    """
    stated = info.scale.mpp if info.scale is not None else None
    uses_file = stated is not None and not user.overrules
    if uses_file or user.mpp is None:
        return SlideScale(slide_scale(info), info.scale_source or "file", stated, from_user=False)
    return SlideScale(slide_scale(info, user.mpp), user.source, stated, from_user=True)
