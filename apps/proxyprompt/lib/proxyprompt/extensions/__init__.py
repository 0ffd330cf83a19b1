"""What the paper does not have. Each part is a file, can be switched off, and says what it brings."""

from typing import NamedTuple


class Extensions(NamedTuple):
    """Which of them are used.

    Attributes:
        pixel_classifier: :mod:`proxyprompt.extensions.pixel_classifier`.
        pieces: :mod:`proxyprompt.extensions.pieces`.
    """

    pixel_classifier: bool = True
    pieces: bool = True


ALL = Extensions()
PAPER = Extensions(pixel_classifier=False, pieces=False)
"""None of them."""
