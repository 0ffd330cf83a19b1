"""Everything that this app changes about the web server it runs in. MONAI Label's files stay as they are."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from fastapi import APIRouter, FastAPI
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

from proxyprompt.datastores.connection import open_session
from proxyprompt.datastores.dicomweb import DicomWebStudies
from proxyprompt.predictor.adapters import AdapterStore
from proxyprompt.session.journal import Journal
from proxyprompt.supports.support import SupportLibrary

from .answers import install_answers
from .auth import install_auth
from .background import install_checks
from .dicomweb_proxy import proxy_router
from .forms import install_forms
from .gate import Gate, started_without_host
from .labels import label_router
from .limits import Limits
from .observe import Observe
from .operations import Operations
from .report import report_router
from .studies import hide_replaced, study_router
from .threads import INFERENCES, RequestThreads
from .uploads import upload_router
from .worklist import worklist_router

TELLTALES = ("monailabel.endpoints", "monailabel.datastore")
"""Loggers that write whole requests, and all that is noted of a study: who its patient is, too."""


def install(
    app: MONAILabelApp,
    *,
    journal: Journal,
    adapters: Callable[[], AdapterStore],
    library: SupportLibrary,
    operations: Operations,
    model_upload: bool = False,
) -> bool:
    """Prepare the web server of this process for ``app``; False when none runs in it.

    journal: what the session report is made of. adapters: the trained versions. library: the labelled studies.
    operations: bounds, figures and log. model_upload: whether other versions may be added over the network, and the one
    that serves be taken away.

    The app is built while the server starts, when the framework has assembled its middleware already; dropping the
    assembled stack makes it assemble a new one at the next request.
    """
    module = sys.modules.get("monailabel.app")
    if module is None:
        return False
    server = module.app
    quieten()
    install_auth()
    install_checks(app)
    install_answers(server)
    install_forms(app)
    hide_replaced()
    include_first(server, study_router(app), prefix=settings.MONAI_LABEL_API_STR)
    store = app.datastore()
    if isinstance(store, DicomWebStudies):
        proxy = proxy_router(app.studies, open_session(app.studies), store.stored_elsewhere)
        include_first(server, proxy, prefix=settings.MONAI_LABEL_API_STR)
    for router in (report_router(journal), label_router(app), worklist_router(app, library)):
        server.include_router(router)
    if model_upload:
        include_first(server, upload_router(adapters))
    wanted = settings.MONAI_LABEL_INFER_CONCURRENCY
    server.middleware_stack = None
    server.add_middleware(RequestThreads, inferences=wanted if wanted > 0 else INFERENCES)
    only_here = started_without_host(sys.argv)
    server.add_middleware(Gate, model_upload=model_upload, only_here=only_here)
    server.add_middleware(Limits, bounds=operations.bounds)
    watched = {"metrics": operations.metrics, "log": operations.log, "checks": operations.checks}
    server.add_middleware(Observe, only_here=only_here, **watched)
    return True


def quieten() -> None:
    """Let only warnings of :data:`TELLTALES` into the log; the log of requests says what was asked for."""
    for name in TELLTALES:
        logging.getLogger(name).setLevel(logging.WARNING)


def include_first(server: FastAPI, router: APIRouter, *, prefix: str = "") -> None:
    """Add routes that are asked before those that the server has.

    Args:
        server: the web server.
        router: of the routes.
        prefix: of their addresses.
    """
    server.include_router(router, prefix=prefix)
    server.router.routes.insert(0, server.router.routes.pop())
