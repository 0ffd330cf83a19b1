"""Labelled studies as supports: which there are, which suit a target, and what their places say of a volume."""
