"""Compile the kernels; everything else stands in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent
SHARED = sorted(str(path.relative_to(HERE)) for pattern in ("*.pxi", "*.h") for path in (HERE / "ext").glob(pattern))

setup(
    ext_modules=[
        Extension(
            f"nuclix.ext.{source.stem}",
            [str(source.relative_to(HERE))],
            depends=SHARED,
            # Debug symbols would make the modules several times larger, fused multiply-adds give other bits elsewhere.
            extra_compile_args=["-O3", "-g0", "-ffp-contract=off"],
        )
        for source in sorted((HERE / "ext").glob("_*.pyx"))
    ],
)
