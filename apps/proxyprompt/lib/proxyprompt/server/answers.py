"""From exceptions to HTTP answers that say what was wrong.

MONAI Label lets exceptions of a task fall through to the web framework, where they are a bare "Internal Server
Error". Here they become JSON ``{"detail": ..., "error": ...}`` with a status that fits.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import reprlib
from collections.abc import Mapping
from typing import Any

import requests
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from pydantic import ValidationError

from proxyprompt.datastores.unreachable import why_not
from proxyprompt.io.errors import StudyError, StudyExists

logger = logging.getLogger(__name__)

_SAID = 3  # of the problems of one request

_STATUS = {
    MONAILabelError.INVALID_INPUT: 400,
    MONAILabelError.MODEL_IMPORT_ERROR: 503,
    MONAILabelError.SERVER_ERROR: 503,
}


def status_of(error: MONAILabelException) -> int:
    """The HTTP status for an error.

    Args:
        error: what was raised.

    Returns:
        400 for bad input, 404 for what does not exist, 503 for weights that cannot be loaded and for an archive that
        does not answer, 500 for failures of ours.
    """
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return 404
    return _STATUS.get(error.error, 500)


def install_answers(server: FastAPI) -> None:
    """Register the error answers; they count once the server assembles its middleware.

    Args:
        server: the web server.
    """

    async def refusal(request: Request, error: MONAILabelException) -> JSONResponse:
        return _answer(request, status_of(error), error.msg, error.error)

    async def unusable(request: Request, error: StudyError) -> JSONResponse:
        return _answer(request, 409 if isinstance(error, StudyExists) else 400, str(error))

    async def bad_json(request: Request, error: json.JSONDecodeError) -> JSONResponse:
        return _answer(request, 400, f"params is not valid JSON: {error}; send an object such as {{}}")

    async def not_as_expected(request: Request, error: RequestValidationError | ValidationError) -> JSONResponse:
        """What the web framework itself finds wrong with the parts of a request, each with what was expected."""
        return _answer(request, 400, "; ".join(map(_said, error.errors()[:_SAID])))

    async def elsewhere(request: Request, error: requests.RequestException) -> JSONResponse:
        """A realm that does not know this user and password, or an archive that refuses, is away, or is a folder."""
        answer = error.response
        if answer is not None and answer.status_code in (400, 401, 403):
            return JSONResponse({"detail": f"refused: the server behind this one {why_not(error)}"}, status_code=401)
        if isinstance(error, requests.exceptions.MissingSchema):
            return JSONResponse({"detail": "these studies are a folder: there is no DICOMweb server"}, status_code=404)
        return JSONResponse({"detail": f"the server behind this one {why_not(error)}"}, status_code=502)

    async def of_the_disk(request: Request, error: OSError) -> JSONResponse:
        """A name that no disk takes, a file that went meanwhile, a program that is not here, a disk that is full."""
        if error.errno == errno.ENAMETOOLONG:
            return _answer(request, 400, "a name in the request is too long for a file; send a shorter one")
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            name = os.path.basename(str(error.filename or ""))
            return _answer(request, 404, f"{name!r} is not there (any more): {error.strerror}")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _answer(request, 507, "the server's disk is full: nothing was stored; tell the operator")
        return failure(request, error)

    async def failed(request: Request, error: Exception) -> JSONResponse:
        return failure(request, error)

    def failure(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        message = f"the server failed at this: {error}; its log (logs/app.log) says where"
        return _answer(request, 500, message, MONAILabelError.SERVER_ERROR)

    handlers: dict[type[Exception], Any] = {
        MONAILabelException: refusal,
        StudyError: unusable,
        json.JSONDecodeError: bad_json,
        RequestValidationError: not_as_expected,
        ValidationError: not_as_expected,
        requests.RequestException: elsewhere,
        OSError: of_the_disk,
        Exception: failed,
    }
    for kind, handler in handlers.items():
        server.add_exception_handler(kind, handler)


def _answer(
    request: Request, status: int, detail: str, error: MONAILabelError = MONAILabelError.INVALID_INPUT
) -> JSONResponse:
    detail = detail.encode(errors="backslashreplace").decode()  # what a request holds need not be Unicode
    logger.warning("%s %s -> %d: %s", request.method, request.url.path, status, detail)
    return JSONResponse({"detail": detail, "error": error.value}, status_code=status)


def _said(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems in words: where, what was given, what was expected."""
    where = ".".join(str(part) for part in problem.get("loc", ()))
    given = problem.get("input")
    shown = "" if given is None else f", given {reprlib.repr(given)}"
    return f"{where}: {problem.get('msg')}{shown}"
