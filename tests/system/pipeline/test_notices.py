"""The pipeline job: a rank that fails alone tells the others."""

import re
import sys
from pathlib import Path

from tests.system.launch import ROOT, mpirun, run

JOB = [sys.executable, str(ROOT / "jobs" / "train_pipeline.py")]


def test_a_rank_that_fails_alone_tells_the_others_why(tmp_path: Path) -> None:
    """Only rank 0 writes the summary, and so finds that it cannot."""
    (tmp_path / "file").touch()
    flags = ["--summary", str(tmp_path / "file" / "below")]
    result = run(mpirun(*[[*JOB, *flags]] * 3))
    assert result.code == 1, result.text
    reason = r"file.* cannot be written"
    assert re.search(f"train_pipeline: rank 0: .*{reason}", result.err), result.text
    for rank in (1, 2):
        line = f"train_pipeline: rank {rank}: rank 0 failed: .*{reason}"
        assert re.search(line, result.err), result.text
    assert "MPI_ABORT" not in result.text, "every rank knows why: nobody has to be ended"
    assert "Traceback" not in result.text, result.text
