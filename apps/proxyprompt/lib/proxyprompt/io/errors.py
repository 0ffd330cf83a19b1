"""What every refusal of bad input in this package is: of a study, or of weights."""


class StudyError(ValueError):
    """An image, a label or an option that cannot be used.

    The message says what was given, what was expected, what to do next.
    """


class StudyExists(StudyError):
    """Something else has the name already, and was not to be replaced."""


class WeightsError(RuntimeError):
    """Weights that are missing, damaged, or made for something else. The message says what to do."""
