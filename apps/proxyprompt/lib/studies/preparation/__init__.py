"""The paper's data sets, as they are distributed, brought to one layout: images/, masks/, groups.csv, dataset.json."""

from lib.studies.preparation.distributions import DISTRIBUTIONS
from lib.studies.preparation.prepare import prepare

__all__ = ["DISTRIBUTIONS", "prepare"]
