"""The rule for the names of studies."""

import pytest

from proxyprompt.io.names import MAX_BYTES, split_suffix, why_unusable
from proxyprompt.io.raster import DICOM, ITK, NIFTI, PLAIN_IMAGES

SUFFIXES = (*NIFTI, *ITK, *DICOM, *PLAIN_IMAGES)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "O'Brien",
            "50%",
            "a;b",
            "{guid}",
            "$HOME",
            '"quoted"',
            "a:b*c?<d>|e",
            "1.2.840.113619.2.1",
            "näme",
            "患者一",
        ),
        *(
            "Bildschirmfoto 10.00\u202fPM",
            " leading",
            "-rf",
            "a..b",
            "emoji \U0001f9e0",
            "x" * MAX_BYTES,
            "auto",
            "#1&2=3",
        ),
    ],
)
def test_what_people_call_their_files_is_a_name(name):
    assert why_unusable(name) is None


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("", "empty"),
        (".", "path"),
        ("..", "path"),
        ("a/b", "path"),
        ("a\\b", "path"),
        ("a\0b", "path"),
        ("._s1", "hidden"),
        ("~$case", "temporary"),
        ("a\nb", "shown"),
        ("a\x7fb", "shown"),
        ("a\u2028b", "shown"),
        ("M\udcfcller", "UTF-8"),
        ("x" * (MAX_BYTES + 1), "longer"),
        ("患" * 67, "longer"),
    ],
)
def test_what_is_no_name_says_why(name, word):
    assert word in why_unusable(name)


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("case.nii.gz", ("case", ".nii.gz")),
        ("CASE.NII.GZ", ("CASE", ".NII.GZ")),
        ("patient.07.nii.gz", ("patient.07", ".nii.gz")),
        ("1.2.840.77.dcm", ("1.2.840.77", ".dcm")),
        ("2024.01.31.png", ("2024.01.31", ".png")),
        ("a.nii.gz_b.nii.gz", ("a.nii.gz_b", ".nii.gz")),
        ("scan.ppm.gz", ("scan", ".ppm.gz")),
        ("IMG.Jpeg", ("IMG", ".Jpeg")),
        ("notes.txt", ("notes", ".txt")),
        ("IM0001", ("IM0001", "")),
    ],
)
def test_only_the_end_of_a_name_is_its_suffix(file, parts):
    assert split_suffix(file, SUFFIXES) == parts
