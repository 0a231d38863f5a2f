r"""Predict images/s against the number of GPUs with fp32, fp16 and ternary gradients.

    python jobs/predict_scaling.py --logdir runs/scaling
    python jobs/predict_scaling.py --check-paper
    python jobs/predict_scaling.py --parameters 25.6e6 --images-per-s-per-gpu 380 \
        --batch-per-gpu 64 --gpus-per-node 8 --inter-node-gbit-per-s 10

Without your own network: the performance figure of the TernGrad paper, with the
one-node baseline that its speed-ups leave out. Prints tables; --logdir and --figure draw.

A projection from a cost model (docs/performance.md): nothing is trained or measured, it
takes seconds on one process, no GPU and no MPI.
"""

import sys

import tyro

from knet_hvd.errors import KnetError
from knet_hvd.files import write_json_atomic
from knet_hvd.flat_config import to_flat_dict
from knet_hvd.metrics import MetricLogger, open_logger
from knet_hvd.metrics.figures import pixels, save_png
from knet_hvd.performance.scaling_config import ScalingConfig
from knet_hvd.performance.scaling_curves import Curve, curve_table, paper_comparison, paper_table
from knet_hvd.performance.scaling_figure import draw


def log_curves(logger: MetricLogger, curves: list[Curve]) -> None:
    """Write each curve as scalars, with the number of GPUs in place of the step."""
    for curve in curves:
        place = f"{curve.network.name}, {curve.cluster.name}".replace("/", " per ")
        for i, count in enumerate(curve.gpu_counts):
            rates = {f"{place}/{method}": rates[i] for method, rates in curve.images_per_s.items()}
            logger.scalars(rates, step=count)


def run(config: ScalingConfig) -> None:
    """Predict, draw, print and write what the configuration asks for.

    Raises:
        ValueError: If an output cannot be written.
        KnetError: If a package is missing.
    """
    curves = config.curves()
    of_paper = config.parameters is None
    path = config.figure
    if path is None and config.logdir is not None:
        path = config.logdir / "scaling.png"
    tables = [paper_table()] if config.check_paper else map(curve_table, curves)
    text = "\n\n".join(tables)
    print(f"{text}\n\nA projection, not measured.")
    with open_logger(config.logdir, rank=0) as logger:
        if path is not None:
            figure = draw(curves)
            save_png(figure, path)
            print(f"Figure: {path}")
            logger.image("scaling", pixels(figure), step=0)
        logger.text("scaling", text, step=0)
        log_curves(logger, curves)
    if config.summary is not None:
        config.summary.parent.mkdir(parents=True, exist_ok=True)
        summary = {
            "config": to_flat_dict(config),
            "curves": [curve.as_dict() for curve in curves],
            "paper": paper_comparison() if of_paper else [],
        }
        write_json_atomic(config.summary, summary)


def main() -> int:
    """Run the job; return the exit code."""
    config = tyro.cli(ScalingConfig, description=__doc__)
    try:
        run(config)
    except (KnetError, ValueError, OSError) as error:
        print(f"predict_scaling: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
