"""``/proxyprompt/progress/NAME``: how far a request is that its client has named (``request_id``), and its end."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from monailabel.config import RBAC_ANNOTATOR, RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC

from proxyprompt.predictor.progress import FollowedRequests


def progress_router(requests: FollowedRequests) -> APIRouter:
    """Routes of requests under way.

    Args:
        requests: of the clients.

    Returns:
        The router.
    """
    router = APIRouter(prefix="/proxyprompt/progress", tags=["ProxyPrompt"])

    @router.get(
        "/{name}",
        summary=f"{RBAC_USER}How far a request is; 0 of 0 where it has not begun, or is done",
        dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    )
    def look(name: str) -> dict[str, int]:
        progress = requests.get(name)
        return {"done": 0, "total": 0} if progress is None else {"done": progress.done, "total": progress.total}

    @router.delete(
        "/{name}",
        summary=f"{RBAC_ANNOTATOR}Cancel a request",
        dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))],
    )
    def cancel(name: str) -> dict[str, bool]:
        progress = requests.get(name)
        if progress is not None:
            progress.cancel()
        return {"cancelled": progress is not None}

    return router
