"""What the paper does not have. Each part is a file, can be switched off, and says what it brings."""

from typing import NamedTuple


class Extensions(NamedTuple):
    """Which of them are used.

    Attributes:
        pieces: :mod:`proxyprompt.extensions.pieces`.
        refinement: :mod:`proxyprompt.extensions.refinement`.
    """

    pieces: bool = True
    refinement: bool = True


ALL = Extensions()
PAPER = Extensions(pieces=False, refinement=False)
"""None of them."""
