"""``/proxyprompt/label``: the label of a study, by whom and when, and those before it, which can be brought back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse
from monailabel.config import RBAC_ANNOTATOR, RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.utils.others.generic import get_mime_type

from proxyprompt.datastores.turns import Turns
from proxyprompt.datastores.versions import LabelVersion, check_base, writer_of
from proxyprompt.errors import refuse
from proxyprompt.requests.options import flag

FINAL = DefaultLabelTag.FINAL.value
BASE, REPLACE = "base", "replace"
"""Options of a Submit: the version that the client had opened, and whether a newer one may be replaced."""
_Reader = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
_Writer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
_turns = Turns()


def submit(
    app: MONAILabelApp,
    image: str,
    label: Path,
    *,
    tag: str,
    info: dict[str, Any],
    user: User,
    base: str | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Store a label that a client sends.

    Args:
        app: whose study it is.
        image: its id.
        label: the file.
        tag: "final", or another one.
        info: to be noted with it; ``base`` and ``replace`` may stand in it.
        user: who sends it.
        base: the version that the client had opened, "" for none; None for clients that do not say: theirs replace.
        replace: whether a label that is newer than ``base`` may be replaced.

    Returns:
        What the client is told: image, label, what ``on_save_label`` adds, and for a final label its version and
        whether the archive has it.

    Raises:
        LabelChanged: when a newer label would be replaced.
        MONAILabelException: when there is no such image, or the label cannot be used.
    """
    given = info.pop(BASE, None)
    base = base if base is not None or given is None else str(given)
    replace = flag(REPLACE, info.pop(REPLACE, None), replace)
    if by := author(user, info):
        info["user"] = by
    store = app.datastore()
    with _turns.of(image):
        if tag == FINAL and base is not None and not replace:
            check_base(image, store.label_versions(image), base)
        saved = store.save_label(image, str(label), tag, info)
        told = {**(app.on_save_label(image, saved) or {}), "image": image, "label": saved}
        return {**told, **_stored(store.current_label(image))} if tag == FINAL else told


def author(user: User, info: Mapping[str, Any] | None = None) -> str:
    """Who is asking: the realm's name where people log in, else what the client says.

    Args:
        user: as MONAI Label knows it.
        info: what the client sends.

    Returns:
        A name; "" where nobody says.
    """
    return user.username if settings.MONAI_LABEL_AUTH_ENABLE else writer_of(info)


def label_router(app: MONAILabelApp) -> APIRouter:
    """Routes of labels and their history.

    Args:
        app: whose studies they are.

    Returns:
        The routes.
    """
    router = APIRouter(prefix="/proxyprompt/label", tags=["ProxyPrompt"])

    @router.get("", summary=f"{RBAC_USER}The label of a study: by whom, when, of what")
    def label(image: str, user: _Reader) -> dict[str, Any]:
        versions = _versions(app, image)
        current = next((asdict(each) for each in versions if each.current), None)
        return {"image": image, "label": current, "earlier": sum(not each.current for each in versions)}

    @router.get("/history", summary=f"{RBAC_USER}All labels of a study, the newest first")
    def history(image: str, user: _Reader) -> dict[str, Any]:
        return {"image": image, "versions": [asdict(each) for each in _versions(app, image)]}

    @router.get("/file", summary=f"{RBAC_USER}The file of one of them", response_class=FileResponse)
    def file(image: str, version: str, user: _Reader) -> FileResponse:
        _known(app, image, version)
        path = Path(app.datastore().version_file(image, version))
        return FileResponse(path, media_type=get_mime_type(str(path)), filename=path.name)

    @router.post("/restore", summary=f"{RBAC_ANNOTATOR}Make an earlier label the one that counts")
    def restore(
        image: str,
        version: str,
        base: str | None = None,
        client_id: str = "",
        *,
        user: _Writer,
    ) -> dict[str, Any]:
        """The label that counts now goes to the history. ``base``: as for ``PUT /datastore/label``."""
        with _turns.of(image):
            _known(app, image, version)
            check_base(image, _versions(app, image), base)
            saved = app.datastore().restore_label(image, version, author(user, {"client_id": client_id}))
            app.on_save_label(image, saved)
            return {"image": image, "label": saved, **_stored(app.datastore().current_label(image))}

    return router


def _versions(app: MONAILabelApp, image: str) -> list[LabelVersion]:
    if not app.datastore().get_image_info(image):
        raise ImageNotFoundException(f"there is no image {image!r}")
    return app.datastore().label_versions(image)


def _known(app: MONAILabelApp, image: str, version: str) -> None:
    known = [each.version for each in _versions(app, image)]
    if version not in known:
        raise refuse(f"{image} has no label of version {version!r}; it has: {', '.join(known) or 'none'}")


def _stored(current: LabelVersion | None) -> dict[str, Any]:
    if current is None:
        return {}
    told: dict[str, Any] = {"version": current.version, "handed_over": current.handed_over}
    if not current.handed_over:
        told["detail"] = (
            "the archive does not answer: the label is kept on this server, counts here from now on, and is handed "
            "over as soon as the archive is back"
        )
    return told
