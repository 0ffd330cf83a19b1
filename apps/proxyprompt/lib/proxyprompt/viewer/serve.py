"""Puts the patched viewer, and an ear at the DICOM proxy, into the running MONAI Label server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from monailabel.endpoints import ohif, proxy
from monailabel.utils.others.generic import get_mime_type

from .bundle import ViewerError, prepare_viewer

logger = logging.getLogger(__name__)

STOCK = Path(ohif.__file__).parent / "static" / "ohif"


def install_viewer(folder: Path, stored: Callable[[], object]) -> None:
    """Serves the viewer at its usual address, with the copies below ``folder``, behind the usual access rules.

    stored: called after every successful store through the proxy, before the viewer hears of it. If the installed OHIF
    is another one, it is served as it is, and the log says what is missing.
    """
    proxy.proxy_dicom = listening(proxy.proxy_dicom, stored)
    try:
        patched = prepare_viewer(STOCK, folder)
    except ViewerError as error:
        logger.error("OHIF is served without submit, single images and clips, and the list of supports: %s", error)
        return
    ohif.get_ohif = lambda path: page(path, (patched, STOCK))
    logger.info("OHIF is served from %s over %s", patched, STOCK)


def page(path: str, folders: tuple[Path, ...]) -> FileResponse:
    """The file of this address in the first folder that has it; the viewer's page for addresses of its own."""
    candidates = [(folder / name).resolve() for name in (path, "index.html") if name for folder in folders]
    roots = [folder.resolve() for folder in folders]
    file = next(f for f in candidates if f.is_file() and any(f.is_relative_to(root) for root in roots))
    # Patched files have the names of the stock ones: browsers ask each time whether theirs is the current one.
    return FileResponse(file, media_type=get_mime_type(str(file)), headers={"Cache-Control": "no-cache"})


def listening(proxied: Callable[..., Any], stored: Callable[[], object]) -> Callable[..., Any]:
    """MONAI Label's proxy, which tells when something was stored."""

    async def proxy_dicom(request: Request, op: str, path: str) -> Response:
        response = await proxied(request, op, path)
        if request.method == "POST" and response.status_code < 300:
            try:
                await run_in_threadpool(stored)
            except Exception:
                logger.exception(
                    "what was stored through the proxy could not be taken in; the next listing tries again"
                )
        return response

    return proxy_dicom
