"""Who a study belongs to: supports and targets, training and validation are kept apart by group, never by slice."""

from __future__ import annotations

import csv
from pathlib import Path

from .cache import content_key
from .errors import StudyError
from .study import UNKNOWN, Study

GROUPS = "groups.csv"


def read_groups(path: Path) -> dict[str, str]:
    """Read a ``groups.csv``: the case in the first column, and a column ``group``.

    Args:
        path: of the file.

    Returns:
        Case -> group; cases with an empty group are left out.

    Raises:
        StudyError: when the file cannot be read or has no such column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            if "group" not in columns:
                raise StudyError(f"{path} has the columns {columns}; expected the case first, and a column 'group'")
            return {row[columns[0]]: row["group"] for row in rows if row["group"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path}: cannot be read ({error}); expected a table with the columns case,group") from error


def patient_of(study: Study) -> str | None:
    """A stand-in for the PatientID in a DICOM file, so that the id itself is not written anywhere.

    Args:
        study: the image.

    Returns:
        A hash; None where the file names no patient.
    """
    patient = str(study.tags.get("PatientID") or "")
    return None if patient in UNKNOWN else content_key("patient", patient)
