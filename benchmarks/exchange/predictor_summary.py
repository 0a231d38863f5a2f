"""What the comparison of predicted and measured exchanges shows: deviations, and right advice."""

import statistics
from collections import Counter
from typing import Any

METHODS = ("fp32", "fp16", "allgather", "alltoall")
MATTERS = 1.1


def judge(cell: dict[str, Any]) -> dict[str, Any]:
    """Add a cell's deviations, and how much of its advice was right."""
    predicted, measured = cell["predicted_s"], cell["measured_s"]
    fastest = min((m for m in METHODS if m != "fp32"), key=measured.__getitem__)
    samples = cell["measurements_s"]
    speedup = statistics.median(
        fp32 / own for fp32, own in zip(samples["fp32"], samples[fastest], strict=True)
    )
    advised = cell["advised"]
    best_s = min(measured.values())
    singles = {m: turn_deviations(cell, m) for m in METHODS}
    return {
        **cell,
        "deviation": {m: statistics.median(singles[m]) for m in METHODS},
        "deviation_of_medians": {m: predicted[m] / measured[m] - 1 for m in METHODS},
        "single_deviations": [value for m in METHODS for value in singles[m]],
        "speedup": speedup,
        "advice_matters": max(speedup, 1 / speedup) > MATTERS,
        "advice_right": sum((m != "fp32") == (speedup > 1) for m in advised),
        "advised_over_fastest": [measured[method] / best_s for method in advised],
    }


def turn_deviations(cell: dict[str, Any], method: str) -> list[float]:
    """Return each prediction's deviation from the exchanges on both sides of it."""
    predictions, samples = cell["predictions_s"][method], cell["measurements_s"][method]
    rounds = len(samples) // (len(predictions) + 1)
    return [
        prediction / statistics.median(samples[i * rounds : (i + 2) * rounds]) - 1
        for i, prediction in enumerate(predictions)
    ]


def summarize(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the cells and what they show together."""
    judged = [judge(cell) for cell in cells]
    deviations = [abs(d) for cell in judged for d in cell["deviation"].values()]
    of_medians = [abs(d) for cell in judged for d in cell["deviation_of_medians"].values()]
    singles = [abs(d) for cell in judged for d in cell["single_deviations"]]
    matters = [cell for cell in judged if cell["advice_matters"]]
    given = sum(len(cell["advised"]) for cell in matters)
    excess = [ratio for cell in judged for ratio in cell["advised_over_fastest"]]
    return {
        "num_predictions": len(deviations),
        "median_deviation": statistics.median(deviations),
        "worst_deviation": max(deviations),
        "medians_median_deviation": statistics.median(of_medians),
        "medians_worst_deviation": max(of_medians),
        "single_calibrations_median_deviation": statistics.median(singles),
        "single_calibrations_worst_deviation": max(singles),
        "cells_where_advice_matters": len(matters),
        "advice_given_there": given,
        "advice_wrong_there": given - sum(cell["advice_right"] for cell in matters),
        "worst_advised_over_fastest": max(excess),
        "cells": judged,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Return the cells as Markdown."""
    columns = ["hosts", "rate", "network", *METHODS, "fastest of the others", "advice"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "--:|" * len(columns)]
    for cell in cells:
        times = [
            f"{1e3 * cell['predicted_s'][m]:,.1f} / {1e3 * cell['measured_s'][m]:,.1f} "
            f"({100 * cell['deviation'][m]:+.0f} %)"
            for m in METHODS
        ]
        counts = Counter(cell["advised"]).most_common()
        choice = ", ".join(f"{number} {method}" for method, number in counts)
        if not cell["advice_matters"]:
            choice += " (within 10 %)"
        row = [str(cell["hosts"]), cell["rate"], cell["network"], *times]
        row += [f"{cell['speedup']:.2f}×", choice]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)
