"""The paper's data sets, as they are distributed, brought to one layout: images/, masks/, groups.csv, dataset.json."""

from .distributions import DISTRIBUTIONS
from .prepare import prepare

__all__ = ["DISTRIBUTIONS", "prepare"]
