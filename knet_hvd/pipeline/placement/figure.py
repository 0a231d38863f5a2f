"""Draws a plan with matplotlib, which is imported only to draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knet_hvd.errors import KnetError
from knet_hvd.pipeline.placement.search import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 110
_BLOCK_COLORS = ("#56B4E9", "#A6D8F5")  # light: names in black stand on them
_REST_COLOR = "#BBBBBB"


def draw_plan(plan: Plan, names: Sequence[str]) -> "Figure":
    """Draw a bar for each stage: its blocks one after the other, and its decoupler.

    A block is as wide as its milliseconds a step where these were measured, otherwise
    all are equally wide.

    Args:
        plan: The plan.
        names: Of the blocks.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        KnetError: The package ``matplotlib`` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise KnetError("drawing needs matplotlib: pip install matplotlib") from error
    num_stages = len(plan.cuts) + 1
    figure = Figure(figsize=(9, 1.2 + 0.7 * num_stages), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    bounds = [0, *plan.cuts, len(names)]
    replicas = len(plan.order) // num_stages
    labels = []
    for stage in range(num_stages):
        ranks = plan.order[stage * replicas : (stage + 1) * replicas]
        named = "rank" if replicas == 1 else "ranks"
        labels.append(f"stage {stage}, {named} {', '.join(map(str, ranks))}")
        _draw_stage(axes, plan, names, stage, range(bounds[stage], bounds[stage + 1]))
    axes.set_yticks(range(num_stages), labels)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds per step" if plan.block_s else "blocks")
    cuts = ", ".join(f"{names[cut - 1]} | {names[cut]}" for cut in plan.cuts)
    title = f"Cut between {cuts}" if cuts else "One stage, no cut"
    if plan.step_s:
        title += f"\nslowest stage or link: {1e3 * plan.step_s:.3g} ms per step; grey: decoupler"
    axes.set_title(title, fontsize=10)
    if not plan.block_s:
        axes.set_xticks(range(max(map(len, map(range, bounds, bounds[1:]))) + 1))
    return figure


def _draw_stage(axes: Any, plan: Plan, names: Sequence[str], stage: int, blocks: range) -> None:
    left = 0.0
    for block in blocks:
        width = 1e3 * plan.block_s[block] if plan.block_s else 1.0
        text = f"{names[block]}\n{width:.3g}" if plan.block_s else names[block]
        color = _BLOCK_COLORS[block % 2]
        axes.barh(stage, width, left=left, color=color, edgecolor="white")
        axes.text(left + width / 2, stage, text, ha="center", va="center", fontsize=9)
        left += width
    if plan.stage_s:
        rest = max(0.0, 1e3 * plan.stage_s[stage] - left)
        axes.barh(stage, rest, left=left, color=_REST_COLOR)
