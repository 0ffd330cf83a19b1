"""What makes a worker's function from a plan, in the worker: the program that gives out the work starts at once."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import BatchPlan
from .workers import Function


@dataclass(frozen=True)
class SegmenterMaker:
    """Loads the weights and prepares the supports of a plan.

    Attributes:
        plan: what to do.
    """

    plan: BatchPlan

    def __call__(self) -> Function:
        """What a worker calls for each study."""
        import torch  # takes seconds, and only workers need it

        from .segmenting import StudySegmenter

        if self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        return StudySegmenter(self.plan)
