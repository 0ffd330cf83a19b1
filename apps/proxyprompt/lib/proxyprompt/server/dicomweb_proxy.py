"""``/proxy/dicom/``: the DICOMweb server behind this one, for viewers that reach this one only.

MONAI Label's own proxy drops the query string, and with it every filter, ``limit`` and ``offset``; what is asked for in
headers (kinds of answers, ranges of bytes); and it reads an answer to its end before the first byte goes out. Here what
comes goes on as it came, and comes back so: status, headers and bytes, whatever they are. Two things are not passed on:
who somebody is at this server, and the addresses at which the archive says its data lie, which the viewer may not
reach: they become addresses of this proxy.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Annotated, Any

import requests
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from monailabel.config import settings
from monailabel.endpoints import proxy
from monailabel.endpoints.user.auth import RBAC, User

from proxyprompt.datastores.unreachable import why_not

logger = logging.getLogger(__name__)

TIMEOUT = (5.0, 120.0)
"""Seconds to be reached, and of silence."""
IN_MEMORY = 1 << 24
"""Bytes of a request that are kept in memory; what is longer goes to a temporary file."""
_CHUNK = 1 << 18
_ROOT = f"{proxy.router.prefix}/dicom/"
_OPERATIONS = ("wado", "qido", "stow")
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
    + ("upgrade",)
)
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length", "authorization", "cookie", "origin", "referer"}
_NOT_RETURNED = _HOP_BY_HOP | {"server", "date", "set-cookie"}
_ADDRESS = re.compile(rb'"https?:(?:\\?/){2}[^"]*?(studies(?:\\?/)[0-9.]+[^"]*)"')
"""In JSON: the address of something of a study, as the archive itself names it."""
_INCLUDED = re.compile(rb"(?<=includefield=)[^&]*", re.IGNORECASE)
"""In a query: attributes with commas between them, for which OHIF writes %2C; Orthanc takes that for one attribute."""

_Reader = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
_Writer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]


def proxy_router(address: str, session: requests.Session, stored: Callable[[], object]) -> APIRouter:
    """The routes below ``/proxy/dicom/``; they must come before MONAI Label's own.

    Args:
        address: of the DICOMweb server.
        session: with its credentials.
        stored: called after every successful store, before the viewer hears of it.

    Returns:
        The routes, without the prefix of MONAI_LABEL_API_STR.
    """
    router = APIRouter(prefix=proxy.router.prefix, tags=["Others"])
    archive = address.rstrip("/")

    @router.get("/dicom/{path:path}", include_in_schema=False)
    @router.head("/dicom/{path:path}", include_in_schema=False)
    async def look(request: Request, user: _Reader) -> Response:
        return await run_in_threadpool(_forward, session, archive, request, None)

    @router.post("/dicom/{path:path}", include_in_schema=False)
    async def store(request: Request, user: _Writer) -> Response:
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as body:
            async for part in request.stream():
                body.write(part)
            body.seek(0)
            response = await run_in_threadpool(_forward, session, archive, request, body)
        if response.status_code < 300:
            await run_in_threadpool(_tell, stored)
        return response

    return router


def target_of(archive: str, raw_path: bytes, query: bytes) -> tuple[str, str]:
    """Where a request to this proxy goes.

    Args:
        archive: address of the DICOMweb server.
        raw_path: of the request, as it came.
        query: of the request, as it came.

    Returns:
        The address, and which part of the proxy was asked: wado, qido, stow or "".
    """
    path = raw_path.partition(_ROOT.encode())[2].decode("latin-1")
    operation, _, rest = path.partition("/")
    if operation not in _OPERATIONS:
        operation, rest = "", path
    prefixes = {
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    metadata = operation == "qido" and rest.endswith("metadata")  # some versions of OHIF ask so
    prefix = prefixes.get("wado" if metadata else operation)
    query = _INCLUDED.sub(lambda found: re.sub(rb"%2C", b",", found[0], flags=re.IGNORECASE), query)
    asked = f"?{query.decode('latin-1')}" if query else ""
    return "/".join(part for part in (archive, prefix, rest) if part) + asked, operation


def readdressed(content: bytes, address: str) -> bytes:
    """JSON of a DICOMweb server, with all that it says lies at itself at another address.

    Args:
        content: the JSON.
        address: in the place of what comes before ``/studies/``.

    Returns:
        The JSON.
    """
    return _ADDRESS.sub(lambda found: b'"' + address.encode() + b"/" + found[1] + b'"', content)


def _forward(session: requests.Session, archive: str, request: Request, body: IO[bytes] | None) -> Response:
    target, operation = target_of(archive, request.scope["raw_path"], request.scope["query_string"])
    try:
        answer = session.request(
            request.method,
            target,
            headers=_forwarded(request.headers),
            data=body,
            stream=True,
            timeout=TIMEOUT,
        )
    except requests.RequestException as error:
        detail = f"the DICOMweb server {archive} {why_not(error)}; check that it runs, and try again"
        logger.warning("%s %s -> 502: %s", request.method, request.url.path, detail)
        return JSONResponse({"detail": detail}, status_code=502)
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_RETURNED}
    headers = {name: value for name, value in headers.items() if not name.lower().startswith("access-control-")}
    if request.method == "HEAD":
        answer.close()
        return Response(status_code=answer.status_code, headers=headers)
    if "json" in answer.headers.get("Content-Type", ""):
        here = f"{str(request.url).partition(_ROOT)[0]}{_ROOT}"
        return _json(answer, headers, here + ("wado" if operation in ("", "qido") else operation))
    return StreamingResponse(_parts(answer), status_code=answer.status_code, headers=headers)


def _forwarded(headers: Mapping[str, str]) -> dict[str, str | bytes | None]:
    """The headers of a request that go on; only such a coding is offered as can be opened here."""
    kept: dict[str, str | bytes | None] = {
        name: value for name, value in headers.items() if name.lower() not in _NOT_FORWARDED
    }
    kept["accept-encoding"] = "gzip" if "gzip" in headers.get("accept-encoding", "") else "identity"
    return kept


def _json(answer: requests.Response, headers: Mapping[str, str], address: str) -> Response:
    content = readdressed(answer.content, address)
    changed = ("content-length", "content-encoding")
    kept = {name: value for name, value in headers.items() if name.lower() not in changed}
    return Response(content, status_code=answer.status_code, headers=kept)


def _parts(answer: requests.Response) -> Iterator[bytes]:
    """The bytes as they come; where the archive breaks off, so does this."""
    with answer:
        yield from answer.raw.stream(_CHUNK, decode_content=False)


def _tell(stored: Callable[[], Any]) -> None:
    try:
        stored()
    except Exception:
        logger.exception("what was stored through the proxy could not be taken in; the next listing tries again")
