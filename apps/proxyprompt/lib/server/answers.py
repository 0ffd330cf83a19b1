"""From exceptions to HTTP answers that say what was wrong.

MONAI Label lets exceptions of a task fall through to the web framework, where they are a bare "Internal Server
Error". Here they become JSON ``{"detail": ..., "error": ...}`` with a status that fits.
"""

from __future__ import annotations

import json
import logging

import requests
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

logger = logging.getLogger(__name__)

_STATUS = {
    MONAILabelError.INVALID_INPUT: 400,
    MONAILabelError.MODEL_IMPORT_ERROR: 503,
    MONAILabelError.SERVER_ERROR: 503,
}


def status_of(error: MONAILabelException) -> int:
    """The HTTP status for an error: 400 for bad input, 404 for what does not exist, 503 for weights that cannot be
    loaded and for an archive that does not answer, 500 for failures of ours."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return 404
    return _STATUS.get(error.error, 500)


def install_answers(server: FastAPI) -> None:
    """Register the error answers; they count once the server assembles its middleware."""

    async def refusal(request: Request, error: MONAILabelException) -> JSONResponse:
        status = status_of(error)
        logger.warning("%s %s -> %d: %s", request.method, request.url.path, status, error.msg)
        return JSONResponse({"detail": error.msg, "error": error.error.value}, status_code=status)

    async def bad_json(request: Request, error: json.JSONDecodeError) -> JSONResponse:
        detail = f"params is not valid JSON: {error}; send an object such as {{}}"
        return JSONResponse({"detail": detail, "error": MONAILabelError.INVALID_INPUT.value}, status_code=400)

    async def elsewhere(request: Request, error: requests.RequestException) -> JSONResponse:
        """A realm that does not know this user and password, or an archive that refuses, is away, or is a folder."""
        answer = error.response
        if answer is not None and answer.status_code in (400, 401, 403):
            return JSONResponse({"detail": f"refused: {error}"}, status_code=401)
        if isinstance(error, requests.exceptions.MissingSchema):
            return JSONResponse({"detail": "these studies are a folder: there is no DICOMweb server"}, status_code=404)
        return JSONResponse({"detail": f"the server behind this one does not answer: {error}"}, status_code=502)

    server.add_exception_handler(MONAILabelException, refusal)
    server.add_exception_handler(json.JSONDecodeError, bad_json)
    server.add_exception_handler(requests.RequestException, elsewhere)
