"""``PUT /model/{model}``, where the operator allows it: a version that was trained elsewhere.

MONAI Label's own handler copies whatever comes over the file that is being served. This one takes adapter files only,
checks them against the weights they belong to, and adds them beside the versions there are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, UploadFile
from monailabel.config import RBAC_ADMIN, settings
from monailabel.endpoints.user.auth import RBAC

from proxyprompt.errors import refuse
from proxyprompt.predictor.adapters import AdapterError, AdapterStore


def upload_router(store: Callable[[], AdapterStore]) -> APIRouter:
    """It must come before MONAI Label's own."""
    router = APIRouter(tags=["Model"], dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))])

    @router.put("/model/{model}", summary=f"{RBAC_ADMIN}Add a version that was trained elsewhere")
    def upload(model: str, file: UploadFile) -> dict[str, Any]:
        try:
            return _take(store(), file)
        except AdapterError as error:
            raise refuse(f"{file.filename!r} was not taken: {error}") from error

    return router


def _take(store: AdapterStore, file: UploadFile) -> dict[str, Any]:
    name = Path(file.filename or "").name.removesuffix(".safetensors")
    with tempfile.TemporaryDirectory() as folder:
        sent = AdapterStore(folder, foundation=store.foundation, foundation_sha256=store.foundation_sha256)
        with sent.path(name).open("wb") as out:
            shutil.copyfileobj(file.file, out)
        header, state = sent.load(name)
        store.save(header, state)
    return {"version": header.name, "status": header.status, "checksum": f"SHA256:{header.sha256}"}
