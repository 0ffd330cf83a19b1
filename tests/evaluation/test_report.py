"""The document beside the paper: the right figures in the right place, and verdicts that follow from them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from measured_units import unit
from PIL import Image

from proxyprompt.evaluation.record import RecordError
from proxyprompt.evaluation.report.document import write_results
from proxyprompt.evaluation.report.drawings import similarity
from proxyprompt.evaluation.report.findings import findings
from proxyprompt.evaluation.report.sheets import Sheet, difference, merged
from proxyprompt.evaluation.summary import summarise


def units(gain=0.0, *, seeds=6):
    """Eyes with a disc and a cup, one to eight supports, worse masks and a wrong collection: all as the paper says."""
    made = []
    for seed in range(seeds):
        for count, level in ((1, 0.5), (4, 0.6), (8, 0.7)):
            wobble = 0.12 / count * (-1) ** seed
            for structure in ("disc", "cup"):
                here = {"collection": "smdg_disc_cup", "structure": structure, "count": count}
                dice = [level + wobble + gain + 0.01 * n for n in range(4)]
                made.append(unit("proxyprompt", seed, dice, **here))
                if count == 1:
                    made[-1] = replace(made[-1], notes={"support_mse": [900.0, 700.0, 500.0, 300.0]})
                if count == 8:
                    for method, lost in (
                        ("proxyprompt, masks at Dice 0", 0.5),
                        ("proxyprompt, masks at Dice 0.82", 0.05),
                        ("proxyprompt, supports of wbc", 0.3),
                        ("box", -0.1),
                    ):
                        made.append(unit(method, seed, [d - lost for d in dice], **here))
    return made


def write(folder, name, some, *, complete=True):
    content = {**summarise(some), "plan": {"collections": ["smdg_disc_cup"], "counts": [1, 4, 8], "unseen": False}}
    training = {"steps": 100 if name != "vit" else 99}
    settings = {"proxyprompt": {"version": "atto-9", "training": training, "untrained": True}}
    content |= {"methods": settings, "complete": complete, "format": 1}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**content, "units": [one.to_json() for one in some]}))
    return f"{name}={path}"


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    variants = {"full": 0.0, "without-ccm": -0.02, "resnet50": 0.03, "vit": -0.3}  # vit was trained in another way
    variants |= {"strategy-3": 0.0, "shots-2": -0.1, "shots-4": -0.05}
    made = [Sheet.read(write(folder, name, units(gain))) for name, gain in variants.items()]
    for structure in ("disc", "cup"):  # a model for each
        some = [one for one in units(0.01 if structure == "disc" else 0.03) if one.structure == structure]
        made.append(Sheet.read(write(folder, "strategy-1", some)))
    return made


def test_a_draw_is_the_mean_over_structures(sheets):
    assert sheets[0].draws("proxyprompt", 4) == pytest.approx([0.645, 0.585] * 3)
    assert sheets[0].counts() == [1, 4, 8] and sheets[0].counts("box") == [8]


def test_differences_are_paired_by_case(sheets):
    full, other, *_ = sheets
    gain = difference(full.of("proxyprompt", 8), other.of("proxyprompt", 8))
    assert gain == pytest.approx((0.02, 0.02, 0.02))
    assert difference(full.of("proxyprompt", 8), []) is None


def test_verdicts(sheets):
    found = {(finding.claim, finding.of): finding for finding in findings(merged(sheets))}
    verdicts = {claim: finding.verdict for (claim, of), finding in found.items() if "full" in of}
    assert verdicts == {
        "Dice rises with the number of supports": "confirmed",
        "its spread over support draws shrinks": "confirmed",
        "an unrelated support hurts (wbc)": "confirmed",
        "empty support masks hurt": "confirmed",
        "masks at Dice 0.82 cost less than half of what empty ones do": "confirmed",
        "the colorization module helps": "confirmed",
        "Vision Mamba is better than ResNet-50": "refuted",
        "Dice rises with the number of training images": "confirmed",
    }
    one_at_a_time = found["training on one set at a time beats training on all", "strategy-1 against strategy-3, K = 8"]
    assert one_at_a_time.measured.mean == pytest.approx(0.02)
    rises = found["Dice rises with the number of supports", "full: K = 8 against K = 1"].measured
    assert rises.mean == pytest.approx(0.2)


def test_draws_of_all_images_tell_nothing_of_the_spread(sheets):
    some = replace(sheets[0], plan={**sheets[0].plan, "shots": 8})
    verdicts = {finding.claim: finding.of for finding in findings([some])}
    assert verdicts["Dice rises with the number of supports"] == "full: K = 8 against K = 1"
    assert verdicts["its spread over support draws shrinks"] == "full: K = 4 against K = 1"
    few = replace(some, plan={**some.plan, "shots": 4})
    assert "its spread over support draws shrinks" not in {finding.claim for finding in findings([few])}


def test_nothing_is_confirmed_by_an_interval_around_zero():
    noise = np.random.default_rng(0).normal(0, 0.1, 12)
    some = [unit("proxyprompt", 0, [0.5] * 12, count=1), unit("proxyprompt", 0, (0.5 + noise).tolist(), count=2)]
    (finding,) = findings([Sheet("x", {}, {}, tuple(some))])
    assert finding.verdict == "undecided"


def test_likeness_pairs_error_and_dice(sheets):
    pairs = similarity(sheets[0])["smdg_disc_cup", "cup"]
    assert len(pairs) == 24 and pairs[0] == (900.0, pytest.approx(0.62)) and pairs[3] == (300.0, pytest.approx(0.65))


def test_the_document(sheets, tmp_path):
    path = write_results(sheets, tmp_path / "docs" / "results.md", command="scripts/figures.py results ...")
    text = path.read_text()
    tasks = next(
        line for line in text.splitlines() if line.startswith("| full | proxyprompt | 8 | 71.5 [70.5, 72.5] /")
    )
    assert (
        "/ **88.0** |" in tasks and "/ **85.5** |" in tasks and "STARE" not in text.split("## All")[0].split("tasks")[1]
    )
    assert "| full | box | 8 | 81.5 [80.5, 82.5] / **54.2** |" in text
    assert "| full | 4 | 6 | 61.5 | 3.29 | 58.5 to 64.5 |" in text
    assert "| the paper |  | 66.6 | 71.8 |" in text and "| full | 8 | 82.0 | 66.5 |" in text
    assert "| without-ccm | yes | 8 | 69.5 / **85.2** |" in text and "| vit | no | 8 | 41.5 / **84.5** |" in text
    assert "| strategy-1 | 8 | 73.5 / **86.4** |" in text and "[71.5, 73.5] / **88.3** |" in text
    assert "| 2 | 8 | 61.5 |" in text and "| 4 | 1 | 46.5 |" in text
    assert "| the colorization module helps | confirmed | +2.0 [+2.0, +2.0] |" in text
    assert "nan" not in text and "not comparable" in text and "version atto-9" in text and str(tmp_path) not in text
    figures = sorted(file.name for file in (tmp_path / "docs" / "results").iterdir())
    assert "supports.png" in figures and "quality-full.png" in figures and "similarity-full.png" in figures
    assert not any("resnet50" in name and "similarity" in name for name in figures)
    assert all(f"](results/{name})" in text for name in figures)
    assert Image.open(tmp_path / "docs" / "results" / "supports.png").width > 700


def test_a_document_of_little(tmp_path):
    some = [unit("copy", 0, [0.5, 0.25], collection="busi", structure="lesion")]
    text = write_results([Sheet("x", {}, {}, tuple(some))], tmp_path / "r.md", command="c").read_text()
    assert "| x | copy | 4 | 37.5 | 23.8 | 1 |" in text and "Fig. 6" not in text and "findings" not in text


def test_records_of_one_name_are_one_unless_they_measured_the_same(sheets):
    one = [sheet for sheet in sheets if sheet.label == "strategy-1"]
    (both,) = merged(one)
    assert both.units == one[0].units + one[1].units
    with pytest.raises(ValueError, match=r"two records called full measured box on smdg_disc_cup cup, K = 8"):
        merged([sheets[0], sheets[0]])


def test_records_that_cannot_be_used(tmp_path):
    with pytest.raises(RecordError, match=r"was interrupted; the same evaluate\.py command finishes it"):
        Sheet.read(write(tmp_path, "half", units(seeds=1), complete=False))
    (tmp_path / "no.json").write_text("[]")
    with pytest.raises(RecordError, match=r"no.json: is not a record of scripts/evaluate\.py"):
        Sheet.read(str(tmp_path / "no.json"))
    assert Sheet.read(write(tmp_path, "b", units(seeds=1)).partition("=")[2]).label == "b"
