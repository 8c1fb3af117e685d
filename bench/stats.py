"""Medians, spreads, ratios; and a plain SVG of bars."""

import html
import statistics
from collections.abc import Mapping, Sequence


def summary(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Median, lowest, highest and all values."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "values": list(values)}


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """An SVG: for each group (a measurement) a bar per series with its (median, low, high), scaled to the group's highest."""
    width, left, bar, gap = 860, 230, 18, 26
    colours = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d")
    rows, y = [], 48
    for name, series in groups.items():
        top = max(high for _, _, high in series.values()) or 1.0
        rows.append(f'<text x="10" y="{y - 6}" font-weight="bold">{html.escape(name)}</text>')
        for number, (label, (median, low, high)) in enumerate(series.items()):
            scale = (width - left - 170) / top
            rows.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>'
                        f'<rect x="{left}" y="{y}" width="{median * scale:.1f}" height="{bar - 3}" '
                        f'fill="{colours[number % len(colours)]}"/>'
                        f'<path d="M{left + low * scale:.1f} {y + 7}H{left + high * scale:.1f}" stroke="#222" stroke-width="1.5"/>'
                        f'<text x="{left + high * scale + 8:.1f}" y="{y + 13}">{median:,.4g} {html.escape(unit)}</text>')
            y += bar + 2
        y += gap
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="#fff"/><text x="10" y="20" font-size="15">{html.escape(title)}</text>'
            + "".join(rows) + "</svg>\n")
