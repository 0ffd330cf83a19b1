"""The session report over HTTP: ``GET /proxyprompt/report``."""

from __future__ import annotations

import io
from enum import StrEnum

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC

from proxyprompt.session.journal import Journal
from proxyprompt.session.plot import draw
from proxyprompt.session.report import session_rows, write_csv


class Format(StrEnum):
    """What the report is given as."""

    csv = "csv"
    png = "png"


def report_router(journal: Journal) -> APIRouter:
    """Routes of the report.

    Args:
        journal: what happened.

    Returns:
        The router.
    """
    router = APIRouter(
        prefix="/proxyprompt",
        tags=["ProxyPrompt"],
        dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    )

    @router.get("/report", summary=f"{RBAC_USER}What labelling cost, by study and structure", response_class=Response)
    def report(format: Format = Format.csv) -> Response:
        rows = session_rows(journal)
        if format is Format.csv:
            return Response(write_csv(rows), media_type="text/csv")
        plot = io.BytesIO()
        draw(rows, plot, format=format.value)
        return Response(plot.getvalue(), media_type="image/png")

    return router
