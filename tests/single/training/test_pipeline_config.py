"""The pipeline job's settings and flags."""

from pathlib import Path

import pytest

from knet_hvd.flat_config import to_flat_dict
from knet_hvd.pipeline.decouplers import Backprop, Conditioned, Delayed, Local
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.flags import parse_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"stages": 0}, "stages: expected at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected > 0"),
        (
            {"decoupler": Backprop(), "microbatches": 3},
            "expected a divisor of batch_size 64, got 3",
        ),
        ({"slow_rank": "1"}, "expected RANK:FACTOR .* got '1'"),
        ({"slow_rank": "1:0.5"}, "a factor of at least 1"),
        ({"decoupler": Local(), "microbatches": 2}, "expected 1 with local"),
        (
            {"decoupler": Delayed(predict_weights=True), "optimizer": "sgd"},
            "predict_weights: expected an optimizer that keeps averages .*Adam",
        ),
        (
            {
                "decoupler": Delayed(),
                "microbatches": 2,
                "replicas": 2,
                "checkpoint_dir": Path("somewhere"),
            },
            "expected 1 with delayed gradients, replicas and checkpoints together",
        ),
        (
            {
                "decoupler": Conditioned(targets="corrected"),
                "replicas": 2,
                "checkpoint_dir": Path("somewhere"),
            },
            "expected no replicas together with checkpoints, got 2",
        ),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PipelineConfig(**settings)


def parse(*flags: str) -> PipelineConfig:
    return parse_config(flags, "A program.")


def test_flags_choose_a_decoupler_and_set_it() -> None:
    flags = ["--decoupler.no-recompute", "--decoupler=delayed", "--decoupler.predict-weights"]
    config = parse(*flags, "--epochs", "3")
    assert config.decoupler == Delayed(recompute=False, predict_weights=True)
    assert config.epochs == 3
    assert parse("--decoupler", "conditioned").decoupler == Conditioned()
    assert parse().decoupler == Local()


def test_a_setting_of_another_decoupler(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--decoupler", "local", "--decoupler.predict-weights")
    assert "--decoupler.predict-weights" in capsys.readouterr().err


def test_an_unknown_decoupler() -> None:
    with pytest.raises(ValueError, match=r"expected one of backprop, .*, got 'dni'"):
        parse("--decoupler", "dni")


def test_help_names_all_decouplers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--decoupler", "delayed", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "backprop, synthetic, conditioned, local, delayed" in shown
    assert "--decoupler.predict-weights" in shown


def test_the_flat_form_has_the_name_and_its_settings_only() -> None:
    flat = to_flat_dict(PipelineConfig(decoupler=Delayed(max_delay=3)))
    found = {key: value for key, value in flat.items() if key.startswith("decoupler")}
    assert found == {
        "decoupler": "delayed",
        "decoupler.recompute": True,
        "decoupler.predict_weights": False,
        "decoupler.count_arrived": True,
        "decoupler.max_delay": 3,
    }


def test_what_is_not_default_leaves_out_a_decouplers_own_defaults() -> None:
    config = PipelineConfig(decoupler=Delayed(predict_weights=True), epochs=3)
    assert config.not_default() == {"epochs": 3, "decoupler.predict_weights": True}
