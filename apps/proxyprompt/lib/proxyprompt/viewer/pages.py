"""The current OHIF with our extension and mode, as HTTP: its files, our modules, one page for all its addresses."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

WEB = Path(__file__).parent / "web"
ROOT = "/ohif"
OURS = f"{ROOT}/proxyprompt/web/"
IMPORTS = {"@proxyprompt/extension": f"{OURS}extension.js", "@proxyprompt/mode": f"{OURS}mode.js"}
OLD_MODE, MODE = f"{ROOT}/monai-label", f"{ROOT}/proxyprompt"
_HASHED = re.compile(r"\.[0-9a-f]{12,}\.(js|css)$|^[0-9a-f]{16}\.(wasm|woff2)$")
_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


def page_of(index: str) -> str:
    """The viewer's page with an import map, which says where our modules are: the only change to its files.

    Args:
        index: its ``index.html``.

    Returns:
        The page.
    """
    imports = ",".join(f'"{name}":"{address}"' for name, address in IMPORTS.items())
    return index.replace("<head>", f'<head><script type="importmap">{{"imports":{{{imports}}}}}</script>', 1)


class ViewerFiles:
    """What answers at the viewer's addresses.

    Args:
        folder: of the unpacked package.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._page = page_of((folder / "index.html").read_text(encoding="utf-8")).encode()
        self._etag = f'"{hashlib.sha256(self._page).hexdigest()[:16]}"'

    def page(self, path: str, query: str = "") -> Response:
        """The viewer's page, at whatever address of its own; MONAI Label's addresses lead to ours.

        Args:
            path: that was asked for.
            query: of the address.

        Returns:
            The answer.
        """
        if path == OLD_MODE:
            return RedirectResponse(f"{MODE}?{query}" if query else MODE)
        return Response(
            self._page, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache", "ETag": self._etag}
        )

    def file(self, path: str, encodings: str = "") -> Response | None:
        """A file of the viewer, which asks for them at the root of the server.

        Args:
            path: that was asked for.
            encodings: that the browser takes.

        Returns:
            The answer; None where there is no such file.
        """
        if path == "/app-config.js":
            return web_file(WEB / "app-config.js")
        found = None if path in ("/", "/index.html") else _inside(self._folder, path.lstrip("/"))
        return None if found is None else _file(found, found.name, encodings)


class Beneath:
    """ASGI application that serves the viewer's files where the server has nothing else at an address.

    Args:
        files: of the viewer.
        otherwise: what answers all the rest.
    """

    def __init__(self, files: ViewerFiles, otherwise: ASGIApp) -> None:
        self._files, self._otherwise = files, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file, or hand on."""
        answer = None
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            answer = self._files.file(scope["path"], Headers(scope=scope).get("accept-encoding", ""))
        await (answer or self._otherwise)(scope, receive, send)


def web_file(path: Path) -> FileResponse:
    """One of our own files, which browsers ask for each time.

    Args:
        path: of the file.

    Returns:
        The answer.
    """
    return FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})


def _inside(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder; None where there is none, or where the name leads out of it."""
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder) and path.is_file() else None


def _file(path: Path, name: str, encodings: str) -> FileResponse:
    kept = "public, max-age=31536000, immutable" if _HASHED.search(name) else "no-cache"
    headers = {"Cache-Control": kept}
    smaller = path.with_name(f"{path.name}.gz")
    if "gzip" in encodings and smaller.is_file():
        path = smaller
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return FileResponse(path, media_type=_TYPES.get(Path(name).suffix, "application/octet-stream"), headers=headers)
