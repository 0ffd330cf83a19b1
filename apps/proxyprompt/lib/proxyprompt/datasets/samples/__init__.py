"""Sample studies drawn by code: nothing of them comes from a patient or from anybody's data set.

They make the app usable and testable out of the box. How they are drawn is kept apart from the tasks that the embedded
model is pretrained on, so that a score on them is a score on something the model has not seen.
"""

from .store import FAMILIES, Family, make_samples, truth_folder

__all__ = ["FAMILIES", "Family", "make_samples", "truth_folder"]
