"""What `--help` shows: all settings, in groups, within the width of the terminal."""

import re
from dataclasses import fields

import pytest

from knet_hvd.flat_config import to_flat_dict
from knet_hvd.pipeline.decouplers import Conditioned, Delayed
from knet_hvd.training.config import JobConfig
from knet_hvd.training.data_parallel import flags as data_parallel_flags
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.help import GROUPS, help_text
from knet_hvd.training.pipeline.config import PipelineConfig

CONFIGS = [
    TrainingConfig(),
    PipelineConfig(),
    PipelineConfig(decoupler=Delayed()),
    PipelineConfig(decoupler=Conditioned()),
]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)


def test_every_setting_is_in_one_group() -> None:
    grouped = [name for group in GROUPS for name in group.names]
    assert len(grouped) == len(set(grouped))
    settings = {each.name for config in CONFIGS for each in fields(config)}
    assert set(grouped) == settings


@every_config
def test_all_flags_are_shown_with_what_they_mean(config: JobConfig) -> None:
    text = help_text(config, "job.py", "A program.")
    shown = re.findall(r"^  (--[a-z0-9.-]+)", text, flags=re.MULTILINE)
    expected = [f"--{name.replace('_', '-')}" for name in to_flat_dict(config)]
    assert sorted(shown) == sorted([*expected, "--help"])
    silent = re.findall(r"^  --\S+(?:, --\S+)?(?: [A-Z{]\S*)?(?: \.\.\.)?\s+\(default", text, re.M)
    assert not silent, "no word about these"


@every_config
@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_into_the_terminal(
    config: JobConfig, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_text(config, "job.py", "A program.").splitlines()
    assert columns - 10 < max(map(len, lines)) < columns
    groups = [group for group in GROUPS if f"{group.title}:" in lines]
    assert len(groups) >= 8
    for group in groups:
        assert lines[lines.index(f"{group.title}:") + 1] == f"  {group.about}"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_shown_whatever_else_is_said(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        data_parallel_flags.parse_config(["--epochs", "3", flag], "What it does.")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "What it does." in shown
    assert "--learning-rate FLOAT" in shown
