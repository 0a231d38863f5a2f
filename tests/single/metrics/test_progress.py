"""Progress bars, throughput and byte counts."""

import pytest

from knet_hvd.metrics import StepSpan, format_bytes, progress


def test_progress_shows_on_rank_0_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), desc="epoch 7", rank=1)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert list(progress(range(3), desc="epoch 7", rank=0)) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 7" in err
    assert "3/3" in err


def test_progress_in_a_log_file_is_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress(desc="steps", rank=0, total=1000)
    for step in range(1000):
        bar.update(1)
        bar.set_postfix({"loss": step}, refresh=False)
    bar.close()
    # Captured output is no terminal: at most the first and the last state.
    err = capsys.readouterr().err
    assert "1000/1000" in err
    assert err.count("steps") <= 3


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (12.5, "12.5 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1024**2 - 1, "1.00 MiB"),
        (102_400, "100.0 KiB"),
        (3 * 1024**3, "3.00 GiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_format_bytes(num_bytes: float, expected: str) -> None:
    assert format_bytes(num_bytes) == expected


@pytest.mark.parametrize("num_bytes", [-1, float("nan"), float("inf")])
def test_format_bytes_refuses_what_is_no_number_of_bytes(num_bytes: float) -> None:
    with pytest.raises(ValueError, match="num_bytes"):
        format_bytes(num_bytes)


def test_rates_cover_the_steps_since_the_span_began() -> None:
    now = [100.0]
    span = StepSpan(clock=lambda: now[0])
    for _ in range(20):
        span.add_step(64)
    now[0] += 4
    assert (span.steps, span.elapsed_s, span.samples_per_s) == (20, 4, 320)
    span.restart()  # an epoch has ended early, and an evaluation took a while
    now[0] += 100
    span.restart()
    span.add_step(64)
    span.add_step(32)
    now[0] += 1
    assert (span.steps, span.samples_per_s) == (2, 96)


def test_a_span_refuses_mistakes() -> None:
    with pytest.raises(ValueError, match="num_samples"):
        StepSpan().add_step(-1)
