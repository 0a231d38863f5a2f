"""On how many ranks a test says something that its other runs, and other tests, do not.

Ranks cost most of the suite's time: four of them on two cores take four times as long as two.
A new file runs as its folder does.
"""

import re

GLOO = "gloo"
"""The run of 2 ranks under ``horovodrun --gloo``; numbers are ranks under ``mpirun``."""
SLOW = "slow"
"""Not in ``make test``, but in ``make test-slow``."""
Run = int | str

# One rank alone, a pair, and odd and even numbers of more: path A is exact for all of them.
EVERY: set[Run] = {1, 2, 3, 4, GLOO}
MORE_THAN_A_PAIR: set[Run] = {2, 3}

TELLING_RUNS: list[tuple[str, set[Run]]] = [
    ("optimizer/", EVERY),
    # What an optimizer does with equal gradients is the same everywhere.
    ("optimizer/test_identical_ranks", MORE_THAN_A_PAIR),
    (r"optimizer/test_identical_ranks.*\[momentum, error feedback", {2, 3, 4, GLOO}),
    ("optimizer/test_unbiased", MORE_THAN_A_PAIR),
    ("optimizer/test_not_finite", {1, 2, 3, 4}),
    # Calibration takes seconds, and under Gloo many.
    ("optimizer/test_auto_compression", {2}),
    ("optimizer/test_auto_compression.*all_ranks_get_the_same", {2, 3, GLOO}),
    ("allreduce/", EVERY),
    ("comm/", {2, 4}),
    # First and last stage; stages between, and replicas. One stage: tests/system.
    ("pipeline/", {2, 4}),
    ("pipeline/test_backprop", {2}),
    ("pipeline/test_backprop.*(momentum-1f1b-8|momentum-sequential-4|adam-1f1b-2)", {2, 4}),
    ("pipeline/test_backprop.*lossless_zeros.*blocks", {4}),
    ("pipeline/test_decoupled.*runs_are_the_same", {2}),
    ("pipeline/test_decoupled.*runs_are_the_same.*(delayed|microbatches|corrected)", {2, 4}),
    ("pipeline/test_decoupled.*it_learns.*mnist4", {2}),
    ("pipeline/test_decoupled.*it_learns.*mnist8", {4}),
    ("pipeline/test_decoupled.*(predsim|bytes_are)", {2}),
    ("pipeline/test_decoupled.*(never_older|one_update_old)", {4}),
    ("pipeline/test_decoupled.*on_one_rank", {1}),
    # Checkpoints: on 4 ranks where gradients are under way between inner stages.
    ("pipeline/test_checkpoints", {2}),
    ("pipeline/test_checkpoints.*was_stopped.*(delayed|corrected|microbatches-stashed)", {2, 4}),
    ("pipeline/test_checkpoints.*(replicas_go_on.*backprop|when_they_come)", {2, 4}),
    # Replicas: of the whole network on 2 ranks, and of two stages on 4.
    ("pipeline/test_replicas.*(float_gradients|replicas_learn)", {2}),
    ("pipeline/test_replicas.*float_gradients.*momentum-4", {2, 4}),
    ("pipeline/test_replicas.*same_bits.*mnist4", {4}),
    ("pipeline/test_replicas.*same_bits.*vgg16", {4, SLOW}),
    (r"pipeline/test_replicas.*same_bits\[(Backprop|Delayed.*-2-).*vgg16", {2}),
    (r"pipeline/test_replicas.*same_bits\[(Synthetic.*bootstrapped).*vgg16", {4}),
    ("pipeline/test_placement.*slow_rank", {2}),
    ("pipeline/test_pipeline_api.*plain_loop", {1, 2, 4}),
    # Replicas of a network that is whole on 2 ranks, and of two stages on 4.
    ("pipeline/test_pipeline_replicas.*(do_not_fit|cannot_share|Backprop)", {2}),
    ("pipeline/test_(pipeline_optimizers|own_layers)", {2}),
    ("pipeline/test_(pipeline_mistakes|text|devices|own_layers|pipeline_optimizers)", {2}),
    # What a job does is the same on two ranks and on more.
    ("training/", {2}),
    ("training/test_job_checkpoints.*was_stopped_ends.*momentum, feedback", {1, 2, 4, GLOO}),
    ("training/test_job_checkpoints.*different_moments", {2, 4}),
    ("training/test_elastic_state", {2, GLOO}),
    ("training/test_elastic_state.*(beginning|go_back|ternary-auto)", {1, 2, 4, GLOO}),
    ("training/test_resume", {1, 2, 4, GLOO}),
    # What a user's script does as well; the controller tells some errors.
    ("usage/", {1, 2}),
    ("usage/test_(refusals|in_horovods_place|dropped_steps)", {1, 2, GLOO}),
]
"""Start of a test's id, as a regular expression, and its runs: the last that matches counts."""

NEEDS_MPI = ("comm/", "pipeline/")
"""Folders whose ranks find each other with mpi4py: under Gloo each would be alone."""


def telling_runs(test: str) -> set[Run]:
    """Return the runs of a test, such as ``comm/test_links.py::test_order[2]``."""
    runs = EVERY
    for pattern, own in TELLING_RUNS:
        if re.match(pattern, test):
            runs = own
    return runs - {GLOO} if test.startswith(NEEDS_MPI) else runs
