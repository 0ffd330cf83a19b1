"""Form fields and bodies of requests that are JSON, but not what the handlers expect.

MONAI Label's handlers read form fields with :func:`json.loads` and take whatever comes for an object, and files by
whatever name they come. Here the same handlers get objects, or the request is refused with the form that is expected.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from fastapi import BackgroundTasks, HTTPException, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse, Response
from monailabel.endpoints import datastore, infer, logs, ohif, session, wsi_infer
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import ImageNotFoundException

from proxyprompt.datastores.dicomweb import DicomWebStudies
from proxyprompt.datastores.noted import check_json
from proxyprompt.errors import refuse
from proxyprompt.io.names import why_unusable
from proxyprompt.viewer.serve import STOCK, page

MOST_LINES = 100_000


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in a form field.

    Args:
        text: of the field.

    Returns:
        The object; an empty one for an empty field.

    Raises:
        MONAILabelException: bad input, when it is not JSON, or no object.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise refuse(f"params is not valid JSON: {error}; send an object such as {{}}") from error
    if not isinstance(value, dict):
        raise refuse(f"params {value!r} is not a JSON object; send one such as {{}}")
    check_json(value)
    return value


def file_name(file: UploadFile) -> str:
    """The name of an uploaded file without the folders that some clients send with it.

    Args:
        file: of the request.

    Returns:
        A plain name.

    Raises:
        MONAILabelException: bad input, when it has none.
    """
    name = os.path.basename((file.filename or "").replace("\\", "/"))
    if reason := why_unusable(name):
        raise refuse(f"the file's name {name!r} {reason}; send the file with a plain name, such as case_01.nii.gz")
    return name


def last_lines(logger_file: str, lines: int | None, *_: object) -> Response:
    """The end of the server's log, as it is now.

    MONAI Label sends a page that loads scripts from other sites, or the file, whose length it tells before it reads it:
    the answer breaks off when a line comes meanwhile.

    Args:
        logger_file: the log.
        lines: how many; None or 0 for ``MOST_LINES``, which are never exceeded.
        _: how MONAI Label's page looks.

    Returns:
        Plain text.

    Raises:
        HTTPException: 404, when there is no log.
    """
    path = Path(logger_file)
    if not path.is_file():
        raise HTTPException(status_code=404, detail="no log is here: the server writes none, or it was removed")
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        return PlainTextResponse("".join(deque(file, min(max(lines or 0, 0) or MOST_LINES, MOST_LINES))))


class _Objects:
    """In the place of the module ``json``, for handlers that expect objects."""

    JSONDecodeError, dumps = json.JSONDecodeError, staticmethod(json.dumps)
    loads = staticmethod(json_object)


def install_forms(app: MONAILabelApp) -> None:
    """Put the checks in front of MONAI Label's handlers.

    Args:
        app: whose studies and sessions requests speak of.
    """
    for module in (datastore, infer, wsi_infer):
        module.json = _Objects
    run_inference, create_session = infer.run_inference, session.create_session
    get_session = session.get_session

    def checked_inference(
        background_tasks: BackgroundTasks,
        model: str,
        image: str = "",
        session_id: str = "",
        params: str = "{}",
        file: UploadFile | None = None,
        label: UploadFile | None = None,
        output: infer.ResultType | None = None,
    ) -> Any:
        if file or label:
            raise refuse(
                "this app takes no file with a request for inference; upload it before (PUT /datastore/image, or "
                "PUT /session/ for one that is not to be kept) and name it: ?image=ID or ?session_id=ID"
            )
        if not image and not session_id:
            raise refuse("no image is named; name one that the datastore lists: ?image=ID, or ?session_id=ID")
        if session_id and (app.sessions() is None or app.sessions().get_session(session_id) is None):
            raise ImageNotFoundException(f"there is no session {session_id!r}; create one with PUT /session/")
        if output != infer.ResultType.dicom_seg:
            return run_inference(background_tasks, model, image, session_id, params, file, label, output)
        store = app.datastore()
        if not isinstance(store, DicomWebStudies) or session_id:
            raise refuse("output dicom_seg is for studies of a DICOMweb server; valid here: image, json, all")
        wanted = infer.ResultType.image
        drawn = run_inference(background_tasks, model, image, session_id, params, file, label, wanted)
        return _as_seg(app, store, image, Path(drawn.path), json_object(params), background_tasks)

    def checked_wsi_inference(*arguments: Any) -> Any:
        return app.infer_wsi({})  # refused before a file of the request is stored

    def checked_create(
        background_tasks: BackgroundTasks, uncompress: bool, expiry: int, files: Sequence[UploadFile]
    ) -> Any:
        names = [file_name(file) for file in files]
        if len(set(names)) < len(names):
            raise refuse("two files of the session have the same name; send each with its own")
        return create_session(background_tasks, uncompress, expiry, files)

    def checked_session(session_id: str, update_ts: bool = False, image: bool = False) -> Any:
        known = app.sessions().get_session(session_id) if image and app.sessions() is not None else None
        if known is not None and not os.path.isfile(known.image):
            raise refuse(f"session {session_id!r} holds several files, which cannot be downloaded as one")
        return get_session(session_id, update_ts, image)

    infer.run_inference, wsi_infer.run_wsi_inference = checked_inference, checked_wsi_inference
    session.create_session, session.get_session = checked_create, checked_session
    logs.get_logs = last_lines
    ohif.get_ohif = lambda path: page(path, (STOCK,))


def _as_seg(
    app: MONAILabelApp,
    store: DicomWebStudies,
    image: str,
    label: Path,
    params: Mapping[str, Any],
    background_tasks: BackgroundTasks,
) -> FileResponse:
    """A result as DICOM SEG; its structures are called as the request wants, else as they are known here."""
    known = next(iter(app.info()["models"].values()))["labels"]
    there = set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(label)))).tolist())
    names = [{"name": name, "idx": value} for name, value in known.items() if value in there]
    folder = tempfile.mkdtemp(prefix="proxyprompt-")
    background_tasks.add_task(shutil.rmtree, folder, ignore_errors=True)
    info = {"label_info": params.get("label_info") or names}
    seg = store.write_seg(image, label, info, Path(folder) / f"{image}.dcm")
    return FileResponse(seg, media_type="application/dicom", filename=seg.name)
