"""A sample of the damaged slides of tests/crash: each is done, or fails with a message that names it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

from end_to_end import config_for, make_model
from mutations import write_mutations
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.executor import Done, Failed
from nuclix.engine.batch.worker import process_slide
from nuclix.engine.segmentation.hooks import RunHooks
from nuclix.engine.segmentation.slide import make_context

COUNT = 60


def test_damaged_slides_are_done_or_fail_with_a_message(tmp_path: Path) -> None:
    write_mutations(tmp_path, COUNT, 1)
    (tmp_path / "out").mkdir()
    config = replace(config_for(tmp_path / "out", make_model(tmp_path / "red.pt")), mpp=0.25)
    shared = make_context(config, time.time())
    done = 0
    for path in sorted((tmp_path / "damaged").iterdir()):
        message = process_slide(
            SlideJob(path, PurePosixPath(path.name)), shared, RunHooks(lambda _: None, lambda: False)
        )
        if isinstance(message, Done):
            done += 1
        else:
            assert isinstance(message, Failed) and path.name in message.message, (path.name, message)
            assert "unexpected" not in message.message, message.traceback
    assert COUNT // 4 < done < COUNT
