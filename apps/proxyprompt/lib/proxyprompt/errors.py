"""Every error of a task is a :class:`MONAILabelException` of the right kind, with a message for the user.

:mod:`proxyprompt.server.answers` turns them into HTTP answers.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from proxyprompt.io.errors import WeightsError

logger = logging.getLogger(__name__)


class Refusal(MONAILabelException):
    """An error whose text is its message, for those who read it in a log or at the end of a process."""

    def __str__(self) -> str:
        return self.msg


class StartError(Refusal):
    """The server cannot start as it was asked to."""

    def __init__(self, message: str) -> None:
        super().__init__(MONAILabelError.APP_INIT_ERROR, message)


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


def refuse(message: str) -> Refusal:
    """The exception for input that cannot be served: what was given, what was expected, what to do next."""
    return Refusal(MONAILabelError.INVALID_INPUT, message)


def in_task_process() -> bool:
    """Whether this process was started by MONAI Label for one task, such as a training, and ends with it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "monailabel.interfaces.utils.app"


@contextmanager
def as_monailabel(
    doing: str, *refusals: type[Exception], failure: MONAILabelError = MONAILabelError.INFERENCE_ERROR
) -> Iterator[None]:
    """Turn what is raised inside into a MONAILabelException; ``failure`` is the kind of those that are our fault.

    ``refusals`` are the exceptions that speak about the input; their message is passed on as it is. So is that of
    weights that cannot be loaded, which is for the operator to put right. Anything else is a failure of ours: its trace
    goes to the log, the caller gets its one-line message.
    """
    try:
        yield
    except MONAILabelException:
        raise
    except WeightsError as error:
        raise Refusal(MONAILabelError.MODEL_IMPORT_ERROR, str(error)) from error
    except refusals as error:
        raise refuse(str(error)) from error
    except MemoryError as error:
        raise Refusal(failure, f"{doing}: out of memory; ask for fewer supports or a smaller image_size") from error
    except Exception as error:
        logger.exception("%s failed", doing)
        raise Refusal(failure, f"{doing} failed: {error}; the server's log (logs/app.log) says where") from error
