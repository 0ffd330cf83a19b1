"""The measured figures as a table on the screen, as JSON, as a plot and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from proxyprompt.io.files import replacing, write_text

from .measure import BenchmarkRow


def screen_table(rows: Sequence[BenchmarkRow]) -> Table:
    """The ratios as a table for the terminal.

    Args:
        rows: all that was measured.

    Returns:
        The table.
    """
    table = Table(title="Ratios within one run")
    for column in ("part", "what", "value", "aim", "", "measured"):
        table.add_column(column, justify="right" if column in ("value", "aim") else "left")
    part = None
    for row in rows:
        if part not in (None, row.part):
            table.add_section()
        table.add_row("" if row.part == part else row.part, row.name, _value(row), _aim(row), _verdict(row), row.note)
        part = row.part
    return table


def write_page(path: Path, rows: Sequence[BenchmarkRow], machine: dict[str, object], *, plot: Path) -> None:
    """Markdown beside ``plot``; the text around the numbers explains what they are."""
    what = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items() if value is not None)
    lines = [
        "# Benchmark",
        "",
        "Written by `python scripts/benchmark.py`; do not edit. Random weights: speed does not depend on what was",
        "learned. Every ratio is between two things that took turns in the same run, so it can be compared between",
        "machines; seconds cannot.",
        "",
        f"Machine: {what}.",
        "",
        "The *floor* of a request is what the foundation must do for the target slice whoever prompts it: the image",
        "encoder, and for SAM 2 memory attention and mask decoder too.",
        "",
        f"![Benchmark]({plot.name})",
        "",
        "| part | what | value | aim | reached | measured |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    lines += [f"| {r.part} | {r.name} | {_value(r)} | {_aim(r)} | {_verdict(r)} | {r.note} |" for r in rows]
    write_text(path, "\n".join(lines) + "\n")


def write_plot(path: Path, rows: Sequence[BenchmarkRow]) -> None:
    """Left: every figure with an aim, as a share of it. Right: how a request grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    shares, growth = figure.subplots(1, 2)
    aimed = [row for row in rows if row.aim is not None]
    share = [row.value / row.aim if not row.at_least else row.aim / max(row.value, 1e-9) for row in aimed]
    names = [f"{row.part}: {row.name} ({_value(row)})" for row in aimed]
    shares.barh(names, share, color=["tab:green" if row.reached else "tab:red" for row in aimed])
    shares.axvline(1, color="black", linewidth=1)
    shares.invert_yaxis()
    shares.tick_params(axis="y", labelsize=7)
    shares.set_xlabel("share of the aim (left of the line: reached)")
    groups: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row.part.startswith("growth with "):
            groups.setdefault(row.part, []).append((int(row.name.rpartition(" ")[2]), row.value))
    for name, points in groups.items():
        first = points[0][0]
        growth.plot([x / first for x, _ in points], [y for _, y in points], marker="o", label=name)
    growth.set(xscale="log", yscale="log", xlabel="times as many", ylabel="times as long")
    if groups:
        growth.legend()
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120, format=path.suffix.lstrip(".") or "png")


def _value(row: BenchmarkRow) -> str:
    return f"{row.value:.2f} {row.unit}" if row.value < 100 else f"{row.value:.0f} {row.unit}"


def _aim(row: BenchmarkRow) -> str:
    return "" if row.aim is None else f"{'>=' if row.at_least else '<='} {row.aim:g} {row.unit}"


def _verdict(row: BenchmarkRow) -> str:
    return {None: "", True: "yes", False: "no"}[row.reached]
