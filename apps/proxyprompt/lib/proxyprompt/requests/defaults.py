"""MONAI Label's own settings, where its defaults do not suit this app.

They are environment variables that nobody should have to know. Whatever the operator did set stays as it is.
"""

from __future__ import annotations

import json
import os

from monailabel.config import settings

from proxyprompt.io.raster import DICOM, ITK, NIFTI, PLAIN_IMAGES

IMAGE_PATTERNS = [f"*{suffix}" for suffix in (*NIFTI, *ITK, *DICOM, *PLAIN_IMAGES)]
"""Of what is read; of two files that differ in the suffix only, the first one has the shorter id."""

DEFAULTS = {
    # A process that imports everything, after each next sample and each training: most of a core for half a minute.
    "MONAI_LABEL_AUTO_UPDATE_SCORING": False,
    # CT alone hides everything else. What is an image is found out by SOP class and pixels.
    "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": {},
    # Two hours in which a newly stored label is no support; seconds are enough to spare the archive.
    "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": 5,
    # NIfTI forgets what DICOM says of time, place and patient: viewers that download images get it, whatever this says.
    "MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI": False,
    "MONAI_LABEL_DATASTORE_FILE_EXT": IMAGE_PATTERNS,
}


def set_defaults() -> None:
    """Put :data:`DEFAULTS` into MONAI Label's settings, and into the environment for the processes it starts."""
    for name, value in DEFAULTS.items():
        if name not in settings.model_fields_set:
            setattr(settings, name, value)
            os.environ[name] = json.dumps(value)
