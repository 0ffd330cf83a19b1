"""Procedural in-context segmentation tasks: anatomies that never existed, in imaging styles of their own."""

from .groups import Groups, draw_groups

__all__ = ["Groups", "draw_groups"]
