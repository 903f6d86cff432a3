"""Trained models that come with the package: each function returns a model file's place."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def attention_kumar16() -> Path:
    """Return the attention network trained without labels on the same images (see attention-kumar16.md)."""
    return _HERE / "attention-kumar16.pt"


def dist_kumar16() -> Path:
    """Return DIST trained on the sixteen training images of Kumar et al. (see dist-kumar16.md)."""
    return _HERE / "dist-kumar16.pt"


def encdec_kumar16() -> Path:
    """Return the encoder-decoder trained on the same images (see encdec-kumar16.md)."""
    return _HERE / "encdec-kumar16.pt"


def multihead_dsb2018() -> Path:
    """Return the multi-head network trained on the Data Science Bowl's images (see multihead-dsb2018.md)."""
    return _HERE / "multihead-dsb2018.pt"


def probability_kumar16() -> Path:
    """Return a U-Net that classifies pixels, trained on the same images (see probability-kumar16.md)."""
    return _HERE / "probability-kumar16.pt"
