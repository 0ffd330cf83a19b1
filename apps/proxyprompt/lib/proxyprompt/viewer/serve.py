"""Puts the viewer and our pages into the running MONAI Label server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints import ohif
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.utils.others.generic import get_mime_type

from .bundle import ViewerError, prepare_viewer
from .package import NAME, VERSION, viewer_folder
from .pages import ROOT, WEB, Beneath, ViewerFiles, web_file

logger = logging.getLogger(__name__)

STOCK = Path(ohif.__file__).parent / "static" / "ohif"
_Reader = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]


def install_pages(server: FastAPI) -> None:
    """Serve our pages, which need nothing from elsewhere: the work list at ``/``, the interface's description at /docs.

    Args:
        server: the web server.
    """
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    def home() -> FileResponse:
        return web_file(WEB / "home.html")

    @router.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return web_file(WEB / "docs.html")

    @router.get(f"{ROOT}/proxyprompt/web/{{name}}", include_in_schema=False)
    def module(name: str) -> Response:
        path = (WEB / name).resolve()
        return web_file(path) if path.parent == WEB.resolve() and path.is_file() else Response("not found", 404)

    _first(server, router)


def install_viewer(server: FastAPI, folder: Path) -> None:
    """Serve the viewer at its usual address, behind the usual access rules.

    Where its package is not here (see :mod:`proxyprompt.viewer.package`), MONAI Label's own, older one is served, and
    the log says what is missing.

    Args:
        server: the web server.
        folder: for copies of what is changed in the older one.
    """
    there = viewer_folder()
    if (there / "index.html").is_file():
        serve_viewer(server, ViewerFiles(there))
        logger.info("OHIF is served from %s", there)
        return
    logger.error(
        "%s %s is not in %s: MONAI Label's older OHIF is served, without our panel (examples, Submit, stored labels), "
        "for CT and MR only; run python -m proxyprompt.viewer.package where npm can be reached, and start again",
        NAME,
        VERSION,
        there,
    )
    try:
        patched = prepare_viewer(STOCK, folder)
    except ViewerError as error:
        logger.error("the older OHIF is served as it is, and asks fonts.googleapis.com for fonts: %s", error)
        return
    ohif.get_ohif = lambda path: page(path, (patched, STOCK))


def serve_viewer(server: FastAPI, files: ViewerFiles) -> None:
    """Add the routes of the current viewer.

    Args:
        server: the web server.
        files: of the viewer.
    """
    router = APIRouter()

    @router.get(ROOT, include_in_schema=False)
    @router.get(f"{ROOT}/{{path:path}}", include_in_schema=False)
    def viewer(request: Request, user: _Reader) -> Response:
        return files.page(request.url.path, request.url.query)

    _first(server, router)
    server.router.default = Beneath(files, server.router.default)


def page(path: str, folders: tuple[Path, ...]) -> FileResponse:
    """A file of the older viewer.

    Args:
        path: below its address.
        folders: where it may be; the first that has it counts.

    Returns:
        The file; the viewer's page for addresses of its own.
    """
    candidates = [(folder / name).resolve() for name in (path, "index.html") if name for folder in folders]
    roots = [folder.resolve() for folder in folders]
    file = next(f for f in candidates if f.is_file() and any(f.is_relative_to(root) for root in roots))
    # Changed files have the names of the stock ones: browsers ask each time whether theirs is the current one.
    return FileResponse(file, media_type=get_mime_type(str(file)), headers={"Cache-Control": "no-cache"})


def _first(server: FastAPI, router: APIRouter) -> None:
    """Add routes that are asked before those that the server has."""
    before = len(server.router.routes)
    server.include_router(router)
    routes = server.router.routes
    routes[:] = [*routes[before:], *routes[:before]]
