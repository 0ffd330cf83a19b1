"""``docs/results.md``: what records say, next to what the paper says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from proxyprompt.evaluation.summary import means, rows
from proxyprompt.evaluation.tables import grid, settings_text
from proxyprompt.io.files import write_text
from proxyprompt.metrics.segmentation import Interval

from . import reported
from .drawings import draw_quality, draw_similarity, draw_supports, similarity
from .findings import QUALITY, alike, findings, qualities, shots_of
from .sheets import OURS, Sheet, merged

_ABOUT = """# Results beside the paper's

Written by `{command}` from records of `scripts/evaluate.py`; a record holds every case's scores, its supports and the
hash of the weights. Dice and IoU are percentages here, as in the paper.

**What can be compared, and what cannot.** The paper fine-tunes SAM ViT-H (641 M parameters, a billion natural masks) at
1024 pixels on 16 images of each task and tests on whole public sets. Records of `atto` are of a model of some 9 M
parameters that was pretrained on a thousand images of other tasks and on drawn ones, at the size that its settings say,
on small stand-in collections, without fine-tuning unless these name an adapter. The levels are not comparable; the
directions are: what helps, what hurts, what makes it steadier."""


def write_results(sheets: Sequence[Sheet], path: Path, *, command: str) -> Path:
    """Tables and what they say; the figures lie beside it, in a folder of its name. Written beside, then renamed."""
    folder = path.with_suffix("")
    records, sheets = sheets, merged(sheets)
    main = [sheet for sheet in sheets if not reported.is_variant(sheet.label)]
    drawn = {
        "supports": draw_supports(main, folder / "supports.png"),
        **{f"quality of {s.label}": draw_quality(s, folder / f"quality-{s.label}.png") for s in sheets},
        **{f"similarity of {s.label}": draw_similarity(s, folder / f"similarity-{s.label}.png") for s in main},
    }
    shown = {name: f"![{name}]({folder.name}/{file.name})" for name, file in drawn.items() if file}
    parts = [
        _ABOUT.format(command=command),
        *_findings(sheets),
        *_tasks(sheets),
        *_collections(sheets),
        *_supports(main, shown.get("supports")),
        *_quality(sheets, shown),
        *_similarity(main, shown),
        *_variants(sheets),
        *_strategies(sheets),
        *_shots(sheets),
        *_records(records),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _findings(sheets: Sequence[Sheet]) -> list[str]:
    found = findings(sheets)
    if not found:
        return []
    lines = [[f.claim, f.verdict, _signed(f.measured), f.of] for f in found]
    return [
        "## Which of its findings hold here\n\nDifferences of Dice, paired by case, with 95 % intervals over groups "
        "(over structures for spreads); confirmed: the whole interval is on the paper's side, refuted: on the other.",
        grid(["the paper", "here", "difference", "measured on"], lines),
    ]


def _tasks(sheets: Sequence[Sheet]) -> list[str]:
    """A line for each record and method, a column for each of the paper's tasks."""
    lines = []
    for sheet in sheets:
        if reported.is_variant(sheet.label):
            continue
        for method in dict.fromkeys(unit.method for unit in sheet.units if unit.method in reported.DICE):
            count = max(sheet.counts(method))
            lines.append([sheet.label, method, str(count), *_by_task(sheet, method, count, reported.DICE[method])])
    header, lines = _measured_tasks(["record", "method", "K"], lines)
    if len(header) == 3:
        return []
    return [
        "## The paper's tasks (tables 1 to 3)\n\nDice here [95 % interval over groups] / **the paper's**, on its own "
        "sets where they were prepared, else on stand-ins: disc and cup of SMDG-19, symphysis and head of PSFHS, "
        "volumes of PROMISE12 at half resolution. `memory` stands beside the paper's MedSAM2, `dynunet` beside its "
        "nnU-Net.",
        grid(header, lines),
    ]


def _by_task(sheet: Sheet, method: str, count: int, theirs: Sequence[float | None]) -> list[str]:
    """A cell for each of the paper's tasks, "-" where there is nothing."""
    table = {(row.collection.lower(), row.structure): row for row in rows(sheet.of(method, count))}
    cells = []
    for task, paper in zip_longest(reported.TASKS, theirs):
        row = next((table[key] for key in task[1:] if key in table), None)
        ours = None if row is None else row.dice
        cells.append("-" if ours is None else _percent(ours) + (f" / **{paper:.1f}**" if paper else ""))
    return cells


def _measured_tasks(header: list[str], lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the tasks that no line has measured."""
    first = len(header)
    columns = [n for n in range(len(reported.TASKS)) if any(line[first + n] != "-" for line in lines)]
    return (
        [*header, *(reported.TASKS[n].name for n in columns)],
        [[*line[:first], *(line[first + n] for n in columns)] for line in lines],
    )


def _collections(sheets: Sequence[Sheet]) -> list[str]:
    lines = []
    for sheet in sheets:
        table = rows(sheet.units)
        dice, iou = means(table), means(table, "iou")
        names = {row.collection for row in table}
        for (method, count), mean in dice.items():
            shown = [
                sheet.label,
                method,
                str(count),
                f"{100 * mean:.1f}",
                f"{100 * iou[method, count]:.1f}",
                len(names),
            ]
            lines.append(list(map(str, shown)))
    return [
        "## All collections\n\nMean over collections of the mean over structures.",
        grid(["record", "method", "K", "Dice", "IoU", "collections"], lines),
    ]


def _supports(sheets: Sequence[Sheet], shown: str | None) -> list[str]:
    if shown is None:
        return []
    lines = []
    for sheet in (sheet for sheet in sheets if len(sheet.counts()) > 1):
        for count in sheet.counts():
            draws = 100 * np.array(sheet.draws(OURS, count))
            spread = f"{draws.std(ddof=1):.2f}" if len(draws) > 1 else "-"
            extremes = f"{draws.min():.1f} to {draws.max():.1f}"
            lines.append([sheet.label, str(count), str(len(draws)), f"{draws.mean():.1f}", spread, extremes])
    return [
        "## The number of supports (Fig. 6 and 13)\n\nThe paper: Dice rises with K up to M - 1, its spread shrinks; "
        "100 draws each, M training images. Draws of as many supports as there are images are all the same.",
        grid(["record", "K", "draws", "Dice", "spread over draws", "from to"], lines),
        shown,
    ]


def _quality(sheets: Sequence[Sheet], shown: dict[str, str]) -> list[str]:
    lines, figures = [], []
    for sheet in sheets:
        if not qualities(sheet):
            continue
        figures.append(shown[f"quality of {sheet.label}"])
        for count in sheet.counts():
            named = [(quality, f"{QUALITY}{quality:g}") for quality in qualities(sheet)]
            dice = [(quality, draws) for quality, name in named if (draws := sheet.draws(name, count))]
            if dice and not any(quality == 1 for quality, _ in dice):
                dice.append((1.0, sheet.draws(OURS, count)))
            lines += [
                [sheet.label, str(count), f"{100 * quality:.1f}", f"{100 * np.mean(draws):.1f}"]
                for quality, draws in dice
            ]
    if not lines:
        return []
    lines += [["the paper", "", f"{prompt:.1f}", f"{output:.1f}"] for prompt, output in reported.QUALITY]
    return [
        "## The quality of the support masks (Table 7)",
        grid(["record", "K", "Dice of the masks", "Dice of the output"], lines),
        *figures,
    ]


def _similarity(sheets: Sequence[Sheet], shown: dict[str, str]) -> list[str]:
    lines, figures = [], []
    for sheet in sheets:
        if found := similarity(sheet):
            figures.append(shown[f"similarity of {sheet.label}"])
        for key, pairs in found.items():
            mse, dice = np.array(pairs).T
            if len(pairs) > 2 and np.ptp(mse) and np.ptp(dice):
                correlation = f"{spearmanr(mse, dice).statistic:+.2f}"
                lines.append([sheet.label, *key, str(len(pairs)), f"{np.median(mse):.0f}", correlation])
    if not lines:
        return []
    return [
        "## The similarity of support and target (section 11.2)\n\nThe paper: Dice hardly depends on the mean square "
        f"error of the images, as long as they show the same thing (an unrelated one gives {reported.UNRELATED}). "
        "Spearman's correlation of that error and Dice, with one support:",
        grid(["record", "collection", "structure", "pairs", "median error", "correlation"], lines),
        *figures,
    ]


def _variants(sheets: Sequence[Sheet]) -> list[str]:
    known = [sheet for sheet in sheets if sheet.label in reported.VARIANTS]
    if len(known) < 2:
        return []
    full = next((sheet for sheet in known if sheet.label == "full"), None)
    lines = []
    for sheet in known:
        same = "yes" if full and alike(full, sheet) else "no"
        lines.append([sheet.label, same, *_beside(sheet, reported.VARIANTS.get(sheet.label))])
    return [
        "## Parts of the generator (tables 4, 5, 12, 13)\n\nHere / **the paper's**. Only what was trained in the same "
        "way from the same start as `full` is compared with it above.",
        grid(*_measured_tasks(["variant", "as full", "K", "mean Dice", "mean IoU"], lines)),
    ]


def _strategies(sheets: Sequence[Sheet]) -> list[str]:
    lines = [
        [sheet.label, *_beside(sheet, reported.STRATEGIES[sheet.label])]
        for sheet in sheets
        if sheet.label in reported.STRATEGIES
    ]
    if not lines:
        return []
    return [
        "## Training strategies (Table 9)\n\nOne model for each data set, one for a modality, one for all. Here "
        "/ **the paper's**.",
        grid(*_measured_tasks(["record", "K", "mean Dice", "mean IoU"], lines)),
    ]


def _shots(sheets: Sequence[Sheet]) -> list[str]:
    """Every K of every M; ``full`` is trained on as many as were kept for training."""
    some = sorted(
        (sheet for sheet in sheets if sheet.label.startswith(reported.SHOTS)), key=lambda s: shots_of(s.label)
    )
    if not some:
        return []
    lines = []
    for sheet in [*some, *(sheet for sheet in sheets if sheet.label == "full")]:
        images = sheet.plan.get("shots") if sheet.label == "full" else shots_of(sheet.label)
        for count in sheet.counts():
            lines.append([str(images), *_beside(sheet, None, count)])
    return [
        "## Training images, M, and supports, K (Fig. 6)\n\nThe paper: Dice rises with both.",
        grid(*_measured_tasks(["M", "K", "mean Dice", "mean IoU"], lines)),
    ]


def _beside(sheet: Sheet, paper: reported.Variant | None, count: int | None = None) -> list[str]:
    """K (the largest by default), mean Dice, mean IoU, Dice of every task, the paper's beside them."""
    count = count or max(sheet.counts())
    table = rows(sheet.of(OURS, count))
    cells = [str(count)]
    for measure, theirs in (("dice", paper and paper.mean), ("iou", paper and paper.iou)):
        ours = means(table, measure)[OURS, count]
        cells.append(f"{100 * ours:.1f}" + (f" / **{theirs:.1f}**" if theirs else ""))
    return [*cells, *_by_task(sheet, OURS, count, paper.dice if paper else ())]


def _records(sheets: Sequence[Sheet]) -> list[str]:
    parts = ["## The records"]
    for sheet in sheets:
        plan = ", ".join(f"{key} {value}" for key, value in sheet.plan.items() if value not in (None, False))
        methods = [f"  - {name}: {settings_text(settings)}" for name, settings in sheet.methods.items()]
        parts.append("\n".join([f"- **{sheet.label}**: {plan}", *methods]))
    return parts


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _signed(interval: Interval) -> str:
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
