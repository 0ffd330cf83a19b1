"""Pretraining of ``atto``: real tasks and drawn ones, points, boxes, masks, memory, and the proxy prompt.

``tasks`` reads the folders; ``augmentation`` and ``pseudo_structures`` make many tasks of few; ``pool`` keeps encoded
groups on disk, written by workers; ``episode`` is one step; ``trainer`` the run, its checkpoints and the weights.
"""
