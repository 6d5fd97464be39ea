"""The picture of one benchmark: seconds of each work relative to the yardstick's.

``python -m tests.bench.chart bench-results/<time>.json`` draws a picture anew.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

YARDSTICK = "s3fs"
COLOURS = {
    "ours direct": "#0b5cad",
    "ours cache": "#4f9bd9",
    "ours temp": "#a8cdea",
    "rclone": "#d98b3a",
}
"""Ours in shades of one colour; what is not here is grey. All readable for colour-blind eyes."""
OTHER_COLOUR = "#8a8a8a"
FAILED_COLOUR = "#b3261e"
WIDTH_INCHES = 11.0
BAR_INCHES = 0.19
GAP_INCHES = 0.2
HEAD_INCHES, FOOT_INCHES = 1.4, 0.75
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
MARK = " †"
MARGIN = 0.14
"""Room for the figures beyond the longest bar on either side, as a share of the axis."""


def draw(document: dict[str, Any], path: Path) -> bool:
    """Draw the results of one run as a PNG; whether there was a yardstick to draw against."""
    results = {(one["work"], one["peer"]): one for one in document["results"]}
    base = {
        work: statistics.median(one["seconds"])
        for (work, peer), one in results.items()
        if peer == YARDSTICK and one["seconds"] and not one["failure"]
    }
    works = [work for work in dict.fromkeys(work for work, _ in results) if work in base]
    peers = [peer for peer in dict.fromkeys(peer for _, peer in results) if peer != YARDSTICK]
    if not works or not peers:
        return False
    group = len(peers) * BAR_INCHES + GAP_INCHES
    height = HEAD_INCHES + FOOT_INCHES + group * len(works)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=130, layout=None)
    axes = figure.add_axes(
        (0.29, FOOT_INCHES / height, 0.67, 1 - (HEAD_INCHES + FOOT_INCHES) / height)
    )
    shares = _bars(axes, results, works, peers, base, group)
    _frame(axes, works, base, shares, group)
    _headings(figure, axes, document, peers, height)
    figure.savefig(path, facecolor="white")
    return True


def _bars(
    axes: Axes,
    results: dict[tuple[str, str], Any],
    works: list[str],
    peers: list[str],
    base: dict[str, float],
    group: float,
) -> list[float]:
    """Bars from the line of the yardstick to the left (quicker) or right; every share drawn."""
    shares = [1.0]
    for row, work in enumerate(works):
        for number, peer in enumerate(peers):
            one = results.get((work, peer))
            if one is None:
                continue
            y = row * group + (number + 0.5) * BAR_INCHES
            if one["failure"] or not one["seconds"]:
                _write(axes, 1, y, one["failure"][:50] or "not measured", FAILED_COLOUR)
                continue
            seconds = statistics.median(one["seconds"])
            share = seconds / base[work]
            shares.append(share)
            colour = COLOURS.get(peer, OTHER_COLOUR)
            axes.barh(y, share - 1, left=1, height=BAR_INCHES * 0.86, color=colour, zorder=2)
            mark = MARK if one["remark"] else ""
            _write(axes, share, y, f"{share:.2f}x · {_seconds(seconds)}{mark}", "#333333")
    return shares


def _write(axes: Axes, share: float, y: float, text: str, colour: str) -> None:
    left = share < 1
    axes.annotate(
        text,
        (share, y),
        xytext=(-4 if left else 4, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=7,
        color=colour,
    )


def _frame(
    axes: Axes, works: list[str], base: dict[str, float], shares: list[float], group: float
) -> None:
    axes.set_xscale("log")
    lowest, highest = min(*shares, 0.5), max(*shares, 1.5)
    room = (highest / lowest) ** (MARGIN / (1 - 2 * MARGIN))
    axes.set_xlim(lowest / room, highest * room)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"time, as a share of {YARDSTICK}'s (logarithmic; left is quicker)")
    middle = (group - GAP_INCHES) / 2
    axes.set_yticks(
        [row * group + middle for row in range(len(works))],
        [f"{work}\n{YARDSTICK}: {_seconds(base[work])}" for work in works],
        fontsize=8.5,
    )
    axes.set_ylim(len(works) * group - GAP_INCHES / 2, -GAP_INCHES / 2)
    for row in range(1, len(works)):
        axes.axhline(row * group - GAP_INCHES / 2, color="#eeeeee", linewidth=0.8, zorder=0)
    axes.axvline(1, color="black", linewidth=1.1, zorder=3)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", top=True, labeltop=True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def _headings(
    figure: Figure, axes: Axes, document: dict[str, Any], peers: list[str], height: float
) -> None:
    sizes = document["sizes"]
    runs = max(len(one["seconds"]) for one in document["results"])
    shape = (
        f"store {document['store']}: {document['ttfb_ms']:g} ms to the first byte,"
        f" {document['mbps']:g} MB/s a connection · model of"
        f" {sizes['model_bytes'] / 2**20:,.0f} MiB · medians of {runs}"
        f" · {document['time'][:16].replace('T', ' ')} UTC"
    )
    remarks = sorted({one["remark"] for one in document["results"] if one["remark"]})
    if remarks:
        note = f"†: {', '.join(remarks)}"
        figure.text(0.02, 0.2 / height, note, fontsize=8.5, color="#444444", va="center")
    title = f"Works through a mount, compared with {YARDSTICK}"
    figure.text(0.02, 1 - 0.27 / height, title, fontsize=13, weight="bold", va="center")
    figure.text(0.02, 1 - 0.55 / height, shape, fontsize=8.5, color="#444444", va="center")
    handles = [
        Line2D([], [], color=COLOURS.get(peer, OTHER_COLOUR), linewidth=7, label=peer)
        for peer in peers
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.3, label=f"{YARDSTICK} = 1"))
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0.012, 1 - 0.84 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handlelength=1.2,
        columnspacing=1.6,
    )


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:,.3g} ms"
    return f"{seconds:.3g} s"


def main() -> int:
    """Draw the results of one file beside it."""
    results = Path(sys.argv[1])
    if not draw(json.loads(results.read_text()), results.with_suffix(".png")):
        sys.stderr.write(f"{YARDSTICK} or everything else is missing in {results}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
