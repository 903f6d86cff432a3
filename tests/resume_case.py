"""A finished slide in an output folder, as the checks of results find it."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.ledger import DONE, LedgerRow
from nuclix.engine.batch.resume import (
    CheckHooks,
    ResultChecker,
    SlideCheck,
)
from nuclix.engine.files import checksum
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.result_key import result_key
from nuclix.engine.slide.identity import content_hash, file_state, slide_state
from nuclix.engine.slide.open import fingerprint


def touch(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


class ResumeCase:
    """A folder with a slide, its result and the ledger's row about it."""

    def __init__(self, folder: Path) -> None:
        self.slide = folder / "a.svs"
        self.slide.write_bytes(b"pixels")
        self.out = folder / "out"
        self.out.mkdir()
        self.result = self.out / "a.geojson"
        self.result.write_text("nuclei")
        self.job = SlideJob(self.slide, PurePosixPath("a"))
        self.config = RunConfig(out=str(self.out))
        self.row: LedgerRow | None = self.made(None, 0.5)
        record = {"format": 1, "slide": {"mpp": 0.5}, "model": {}, "settings": {}}
        (self.out / "a.json").write_text(json.dumps(record))

    def made(self, user_mpp: float | None, mpp: float) -> LedgerRow:
        """Return the row of a result made with a scale from the user, or None for the file's own."""
        facts: dict[str, Any] = dict(error=None, begun=1.0, ended=2.0, fingerprint="", attempts=1, bytes=6)
        return LedgerRow(
            "a",
            "a.svs",
            key=result_key(fingerprint(self.slide), "model", self.config, user_mpp),
            state=DONE,
            output="a.geojson",
            checksum=checksum(self.result),
            record={"slide": {"mpp": mpp}, "counts": {"nuclei": 1}},
            slide_state=slide_state(self.slide).text,
            content=content_hash(self.slide),
            output_state=json.dumps({"a.geojson": file_state(self.result)}),
            **facts,
        )

    def checker(self, model: str = "model", hooks: CheckHooks | None = None) -> ResultChecker:
        return ResultChecker(self.config, model, {"a": self.row} if self.row else {}, hooks)

    def check(self, model: str = "model") -> SlideCheck:
        return self.checker(model).check(self.job)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.out.iterdir())}
