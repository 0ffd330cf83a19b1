"""Which study to label next."""

from __future__ import annotations

import random

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy


class FirstUnlabelled(Strategy):
    """The first study, by name, that has no final label."""

    def __init__(self) -> None:
        super().__init__("First unlabelled study by name")

    def __call__(self, request: dict, datastore: Datastore) -> dict | None:
        waiting = sorted(set(datastore.get_unlabeled_images()))
        return {"id": waiting[0]} if waiting else None


class RandomUnlabelled(Strategy):
    """Any study without a final label, least often proposed first, so that pressing "next" again moves on.

    Viewers can only ask for the strategy named ``random``, so this is what their button does.
    """

    def __init__(self) -> None:
        super().__init__("Random unlabelled study")

    def __call__(self, request: dict, datastore: Datastore) -> dict | None:
        waiting = sorted(set(datastore.get_unlabeled_images()))
        if not waiting:
            return None
        name = request.get("strategy", "random")
        proposed = {i: datastore.get_image_info(i).get("strategy", {}).get(name, {}).get("ts", 0) for i in waiting}
        oldest = min(proposed.values())
        return {"id": random.choice([i for i in waiting if proposed[i] == oldest])}
