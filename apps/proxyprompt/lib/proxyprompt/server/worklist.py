"""``GET /proxyprompt/studies``, the work list: which studies are labelled, by whom and when, which proposed, and why.

``POST /proxyprompt/flags``: what a person decides about a label that leave-one-out has flagged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from monailabel.config import RBAC_ANNOTATOR, RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException

from proxyprompt.activelearning.strategies import RECENTLY
from proxyprompt.datastores.notes import DISAGREEMENT, QUALITY, read_note, write_note
from proxyprompt.datastores.versions import LabelVersion, moment
from proxyprompt.errors import refuse
from proxyprompt.supports.support import SupportLibrary

from .labels import author

MOST = 1000
_TAGS = {
    "patient": "PatientID",
    "modality": "Modality",
    "series": "SeriesDescription",
    "date": "StudyDate",
    "study": "StudyInstanceUID",
}
_Reader = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
_Writer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]


class WorkState(StrEnum):
    """Of a study: it has a label, it has none, or the server has proposed to label it next."""

    labelled = "labelled"
    unlabelled = "unlabelled"
    proposed = "proposed"


def worklist_router(app: MONAILabelApp, library: SupportLibrary) -> APIRouter:
    """Routes of the work list.

    Args:
        app: whose studies they are.
        library: the labelled studies.

    Returns:
        The routes.
    """
    router = APIRouter(prefix="/proxyprompt", tags=["ProxyPrompt"])

    @router.get("/studies", summary=f"{RBAC_USER}The work list: labelled, unlabelled, proposed, by whom and when")
    def studies(
        state: WorkState | None = None,
        text: str = "",
        modality: str = "",
        by: str = "",
        structure: str = "",
        flagged: bool | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
        offset: Annotated[int, Query(ge=0)] = 0,
        *,
        user: _Reader,
    ) -> dict[str, Any]:
        """Filters narrow each other. ``text`` is looked for in ids, patients and descriptions, in any case.

        A proposed study is unlabelled, too.
        """
        rows = work_list(app.datastore(), library)
        wanted = {"modality": modality, "by": by}
        found = [row for row in rows if _matches(row, state, text, wanted, structure, flagged)]
        counts = {each.value: sum(_is(row, each) for row in rows) for each in WorkState}
        return {"total": len(found), "counts": counts, "studies": found[offset : offset + limit]}

    @router.post("/flags", summary=f"{RBAC_ANNOTATOR}Leave a flagged label out of the supports, or keep it")
    def decide(image: str, leave_out: bool, client_id: str = "", *, user: _Writer) -> dict[str, Any]:
        """Until somebody decides, a flag is said with every result and changes none."""
        store = app.datastore()
        if not store.get_image_info(image):
            raise ImageNotFoundException(f"there is no image {image!r}")
        note = read_note(store, image, QUALITY)
        if not library.flagged(image):
            raise refuse(f"the label of {image} is not flagged: there is nothing to decide")
        decision = {
            "leave_out": leave_out,
            "by": author(user, {"client_id": client_id}),
            "time": moment(time.time()),
            "label": note.get("label"),
        }
        write_note(store, image, QUALITY, {**note, "decision": decision})
        return {"image": image, "flagged": note.get("flagged", []), "decision": decision}

    return router


def work_list(store: Datastore, library: SupportLibrary) -> list[dict[str, Any]]:
    """All studies, in the datastore's order, with what is known of each without opening it.

    Args:
        store: of the studies.
        library: the labelled ones.

    Returns:
        One object a study: id, what people call it, its state, its label, why it is proposed, what is flagged.
    """
    labelled = set(store.get_labeled_images())
    last: Mapping[str, LabelVersion] = store.last_labels()
    return [
        _row(store, library, image_id, image_id in labelled, last.get(image_id)) for image_id in store.list_images()
    ]


def _row(
    store: Datastore, library: SupportLibrary, image_id: str, labelled: bool, label: LabelVersion | None
) -> dict[str, Any]:
    info = store.get_image_info(image_id)
    proposed = None if labelled else _proposed(info)
    state = WorkState.labelled if labelled else WorkState.proposed if proposed else WorkState.unlabelled
    flags = library.flagged(image_id) if labelled else ()
    quality = info.get(QUALITY) or {}
    return {
        "id": image_id,
        **{key: str(info.get(tag) or "") for key, tag in _TAGS.items()},
        "state": state.value,
        "label": asdict(label) if labelled and label else None,
        "proposed": proposed,
        "flagged": list(flags),
        "dice": {name: (quality.get("dice") or {}).get(name) for name in flags},
        "decision": quality.get("decision") if flags else None,
    }


def _proposed(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Who was offered a study as the next one within a day, and why; None where nobody was."""
    noted = [
        (entry.get("ts", 0), name, entry)
        for name, entry in (info.get("strategy") or {}).items()
        if time.time() - entry.get("ts", 0) < RECENTLY
    ]
    if not noted:
        return None
    seconds, name, entry = max(noted, key=lambda each: each[0])
    return {
        "strategy": name,
        "time": moment(seconds),
        "to": str(entry.get("client_id") or ""),
        "reason": reason(info),
    }


def reason(info: Mapping[str, Any]) -> str:
    """Why a study was proposed, in words.

    Args:
        info: of the image.

    Returns:
        A sentence.
    """
    score = (info.get(DISAGREEMENT) or {}).get("score")
    if score is None:
        return "it has no label yet; it was not scored when it was proposed"
    return f"supports disagree on it by {score:.0%}, and it is unlike what is labelled already"


def _is(row: Mapping[str, Any], state: WorkState) -> bool:
    return row["state"] == state.value or (state is WorkState.unlabelled and row["state"] == WorkState.proposed.value)


def _matches(
    row: Mapping[str, Any],
    state: WorkState | None,
    text: str,
    wanted: Mapping[str, str],
    structure: str,
    flagged: bool | None,
) -> bool:
    label = row["label"] or {}
    known = {"modality": row["modality"], "by": label.get("by", "")}
    said = " ".join((row["id"], row["patient"], row["series"], row["modality"])).casefold()
    return (
        (state is None or _is(row, state))
        and text.casefold() in said
        and all(not value or known[key].casefold() == value.casefold() for key, value in wanted.items())
        and (not structure or structure.casefold() in (name.casefold() for name in label.get("structures", ())))
        and (flagged is None or bool(row["flagged"]) is flagged)
    )
