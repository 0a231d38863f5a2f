"""Draws scaling curves with matplotlib, which is imported only to draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knet_hvd.errors import KnetError
from knet_hvd.performance.scaling import METHODS, Method
from knet_hvd.performance.scaling_curves import Curve
from knet_hvd.performance.terngrad_figure import CELLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colors, told apart with any color vision; markers and dashes differ as
# well, for print in grey.
_STYLES: dict[Method, dict[str, Any]] = {
    "fp32": {"color": "#D55E00", "marker": "s", "linestyle": "-"},
    "fp16": {"color": "#CC79A7", "marker": "^", "linestyle": "-."},
    "ternary": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
}
_BASELINE = {"color": "#222222", "linestyle": "--", "linewidth": 1.2}
_IDEAL = {"color": "#AAAAAA", "linestyle": ":", "linewidth": 1.2}
_DOTS_PER_INCH = 110


def draw(curves: Sequence[Curve], columns: int = 3) -> "Figure":
    """Draw images a second against GPUs, a panel for each curve.

    The dashed line is one full node with fp32, hollow markers are what the TernGrad
    paper's figure shows, the dotted line is a linear speed-up of one GPU.

    Args:
        curves: What to draw, row by row.
        columns: Panels in a row.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        KnetError: The package ``matplotlib`` is not installed.
        ValueError: There is no curve.
    """
    if not curves:
        raise ValueError("curves: expected at least one, got none")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise KnetError("drawing needs matplotlib: pip install matplotlib") from error
    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    size = (max(6.4, 4.3 * columns), 0.9 + 3.7 * rows)
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    for panel, curve in zip(panels, curves, strict=False):
        _draw_panel(panel, curve)
    figure.suptitle("Training throughput: projected by a cost model, not measured")
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
    )
    return figure


def _draw_panel(panel: Any, curve: Curve) -> None:
    """Draw one curve into matplotlib's axes."""
    counts, ideal = curve.gpu_counts, curve.network.images_per_s_per_gpu
    panel.plot(counts, [ideal * n for n in counts], label="linear", **_IDEAL)
    panel.axhline(curve.one_node, label="one node, fp32", **_BASELINE)
    for method in METHODS:
        rates = curve.images_per_s[method]
        panel.plot(counts, rates, label=method, markersize=5, **_STYLES[method])
    for method in ("fp32", "ternary"):
        _draw_paper(panel, curve, method)
    # In the corner that rising curves leave free.
    panel.text(
        x=0.98,
        y=0.03,
        s=f"- - one node of {curve.cluster.gpus_per_node} GPUs,\n"
        f"fp32: {curve.one_node:,.0f} images/s",
        transform=panel.transAxes,
        horizontalalignment="right",
        fontsize=8,
    )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(counts, [str(count) for count in counts])
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.set_title(f"{curve.network.name}\n{curve.cluster.name}", fontsize=9)
    panel.set_xlabel("GPUs")
    panel.set_ylabel("images/s, all GPUs")
    panel.grid(visible=True, color="#E5E5E5", linewidth=0.7)
    panel.set_axisbelow(True)


def _draw_paper(panel: Any, curve: Curve, method: Method) -> None:
    """Add what the TernGrad paper's figure shows, where the curve is one of its."""
    points = [
        (cell.num_gpus, cell.fp32 if method == "fp32" else cell.ternary)
        for cell in CELLS
        if (cell.network, cell.cluster) == (curve.network.name, curve.cluster)
        and cell.num_gpus in curve.gpu_counts
    ]
    if points:
        panel.plot(
            *zip(*points, strict=True),
            label=f"{method}, the paper's figure",
            linestyle="none",
            marker=_STYLES[method]["marker"],
            markersize=10,
            markerfacecolor="none",
            markeredgecolor=_STYLES[method]["color"],
            markeredgewidth=1.3,
        )
