"""From refusals to answers: every error of the app becomes one clear HTTP error, and the server goes on.

MONAI Label lets exceptions of a task fall through to the web framework, where they are a bare "Internal Server
Error". Tasks here raise :class:`MONAILabelException` with the right kind; :func:`install_handlers` teaches the running
server to turn it into JSON ``{"detail": ..., "error": ...}`` with a status that fits.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from lib.foundation import CheckpointError

logger = logging.getLogger(__name__)

_STATUS = {
    MONAILabelError.INVALID_INPUT: 400,
    MONAILabelError.MODEL_IMPORT_ERROR: 503,
    MONAILabelError.SERVER_ERROR: 503,
}


class StartError(MONAILabelException):
    """The server cannot start as it was asked to."""

    def __init__(self, message: str) -> None:
        super().__init__(MONAILabelError.APP_INIT_ERROR, message)

    def __str__(self) -> str:
        return self.msg


@contextmanager
def starting(*refusals: type[Exception]) -> Iterator[None]:
    """Turn the expected errors of a start into one clear StartError.

    In the server's process, which ends with it, the message stands without the framework's trace around it.
    """
    try:
        yield
    except refusals as error:
        if "monailabel.app" in sys.modules:
            sys.tracebacklimit = 0
        raise StartError(str(error)) from None


def refuse(message: str) -> MONAILabelException:
    """The exception for input that cannot be served: what was given, what was expected, what to do next."""
    return MONAILabelException(MONAILabelError.INVALID_INPUT, message)


@contextmanager
def as_monailabel(doing: str, *refusals: type[Exception]) -> Iterator[None]:
    """Turn what is raised inside into a MONAILabelException.

    ``refusals`` are the exceptions that speak about the input; their message is passed on as it is. So is that of
    weights that cannot be loaded, which is for the operator to put right. Anything else is a failure of ours: its trace
    goes to the log, the caller gets its one-line message.
    """
    try:
        yield
    except MONAILabelException:
        raise
    except CheckpointError as error:
        raise MONAILabelException(MONAILabelError.MODEL_IMPORT_ERROR, str(error)) from error
    except refusals as error:
        raise refuse(str(error)) from error
    except MemoryError as error:
        raise MONAILabelException(
            MONAILabelError.INFERENCE_ERROR, f"{doing}: out of memory; ask for fewer supports or a smaller image_size"
        ) from error
    except Exception as error:
        logger.exception("%s failed", doing)
        raise MONAILabelException(
            MONAILabelError.INFERENCE_ERROR,
            f"{doing} failed: {type(error).__name__}: {error}; the server's log (logs/app.log) has the trace",
        ) from error


def status_of(error: MONAILabelException) -> int:
    """The HTTP status for an error: 400 for bad input, 404 for what does not exist, 503 for weights that cannot be
    loaded and an archive that does not answer, 500 for failures of ours."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return 404
    return _STATUS.get(error.error, 500)


def install_handlers() -> bool:
    """Register the error answers with MONAI Label's web server; False when no server runs in this process.

    The app is built while the server starts, when the framework has already assembled its middleware from the
    handlers known until then; dropping the assembled stack makes it assemble a new one at the next request.
    """
    module = sys.modules.get("monailabel.app")
    if module is None:
        return False
    from fastapi.responses import JSONResponse

    async def answer(request, error: MONAILabelException) -> JSONResponse:
        status = status_of(error)
        logger.warning("%s %s -> %d: %s", request.method, request.url.path, status, error.msg)
        return JSONResponse({"detail": error.msg, "error": error.error.value}, status_code=status)

    async def bad_json(request, error: json.JSONDecodeError) -> JSONResponse:
        detail = f"params is not valid JSON: {error}; send an object such as {{}}"
        return JSONResponse({"detail": detail, "error": MONAILabelError.INVALID_INPUT.value}, status_code=400)

    server = module.app
    server.add_exception_handler(MONAILabelException, answer)
    server.add_exception_handler(json.JSONDecodeError, bad_json)
    server.middleware_stack = None
    return True
