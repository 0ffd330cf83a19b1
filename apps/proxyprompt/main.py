"""The app that MONAI Label starts: settings, datastore, tasks."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from monailabel.config import settings as server_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from lib.foundation import CheckpointError, build_foundation
from lib.segmenter import available_versions, build_segmenter
from lib.settings import Settings, SettingsError
from lib.studies.cache import ContentCache
from lib.studies.descriptors import DescriptorIndex
from lib.studies.errors import StudyError
from lib.studies.intensity import IntensitySettings
from lib.studies.labels import StructureRegistry
from lib.studies.support import SupportLibrary
from lib.tasks.batch import BatchInfer
from lib.tasks.defaults import set_defaults
from lib.tasks.dicomweb import DicomWebStudies, open_archive
from lib.tasks.errors import install_handlers, refuse, starting
from lib.tasks.folder import StudyFolder
from lib.tasks.infer import DISCLAIMER, ProxyPromptInfer
from lib.tasks.models import Models
from lib.tasks.safety import SafeSessions, check_id, guard, image_path
from lib.tasks.strategy import FirstUnlabelled, RandomUnlabelled
from lib.viewer.serve import install_viewer

logger = logging.getLogger(__name__)

set_defaults()

NAME = "proxyprompt"
DESCRIPTOR_PIXELS = 256
MEGABYTE = 1 << 20


class ProxyPromptApp(MONAILabelApp):
    """Segments a study by pointing at another, labelled study."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        with starting(SettingsError):
            self.options = Settings.from_conf(conf)
            self._device = self.options.torch_device()
        self._embedded = Path(app_dir) / "model"
        self._weights = self.options.weights_dir or self._embedded
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Proxy Prompt",
            description=f"In-context segmentation: a labelled study tells what to segment in another. {DISCLAIMER}",
            version="0.1.0",
        )

    # what the base class asks for

    def init_datastore(self) -> Datastore:
        datastore = guard(self._open_studies())
        folder = self._state_folder(datastore)
        cache = ContentCache(
            self.options.cache_dir or folder / "cache",
            memory_bytes=self.options.cache_memory_mb * MEGABYTE,
            disk_bytes=self.options.cache_disk_mb * MEGABYTE,
        )
        with starting(StudyError):
            self.library = SupportLibrary(
                datastore,
                StructureRegistry(folder / "structures.json"),
                descriptors=DescriptorIndex(self._describer, cache),
                cache=cache,
                intensity=IntensitySettings.parse(self.options.window),
                conf_labels=self.options.labels,
            )
        self.cache = cache
        return datastore

    def init_infers(self) -> dict[str, ProxyPromptInfer]:
        self.models = Models(self._build, self._versions, self.options.adapter)
        task = ProxyPromptInfer(
            models=self.models, library=self.library, cache=self.cache, supports=self.options.supports
        )
        return {NAME: task}

    def init_batch_infer(self) -> BatchInfer:
        return BatchInfer()

    def init_strategies(self) -> dict[str, Any]:
        return {"random": RandomUnlabelled(), "first": FirstUnlabelled()}

    def _download_dcmqi_tools(self) -> None:
        """dcmqi is among the requirements; nothing is fetched from the internet at start."""

    def _load_sessions(self, load: bool = False) -> SafeSessions | None:
        if not load:
            return None
        return SafeSessions(server_settings.MONAI_LABEL_SESSION_PATH, server_settings.MONAI_LABEL_SESSION_EXPIRY)

    def on_init_complete(self) -> None:
        """The server is about to take requests: the weights must be there now, not at the first request."""
        if install_handlers() and isinstance(self.datastore(), DicomWebStudies):
            install_viewer(self._state_folder(self.datastore()) / "viewer", self.datastore().stored_elsewhere)
        with starting(CheckpointError, ValueError):
            self.models.get()
        threading.Thread(target=self._index, name="library", daemon=True).start()
        super().on_init_complete()

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """A label came in: what was computed from the one before goes, and the study is a support from now on."""
        self.library.refresh()

    # requests

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run the task of ``request["model"]`` on an image of the datastore.

        MONAI Label's own version takes any path that exists for an image; here an image is what the datastore lists,
        or a file that a session of this server holds.
        """
        store = datastore or self.datastore()
        task = self._infers.get(request.get("model"))
        if task is None:
            raise refuse(f"there is no model {request.get('model')!r}; valid: {', '.join(self._infers)}")
        image = request.get("image")
        session = request.get("session")
        if session is not None:
            image = self._session_file(session)
        else:
            image_path(store, image)
        path, answer = task({**request, "image": image})
        result = {"label": path, "tag": DefaultLabelTag.ORIGINAL, "file": path, "params": answer}
        if request.get("save_label") and session is None:
            tag = check_id(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value, "label tag")
            result["label"] = store.save_label(image, path, tag, {"model": request["model"], "params": answer})
            result["tag"] = tag
        return result

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Whole-slide requests name regions of files by path; this app has nothing for them."""
        raise refuse("whole-slide inference is not offered by this app; use POST /infer/proxyprompt?image=ID")

    def sessions(self) -> SafeSessions | None:
        return self._sessions

    # inside

    def _open_studies(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()  # which calls _init_dicomweb_datastore()
        return StudyFolder(
            self.studies,
            extensions=server_settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=server_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=server_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> DicomWebStudies:
        return open_archive(
            self.studies,
            conf_labels=self.options.labels,
            on_new_label=lambda image_id: self.on_save_label(image_id, image_id),
        )

    def _session_file(self, session: Any) -> Path:
        """The file of a session as this server knows it; what the request says about its path does not count."""
        name = check_id(session.get("name") if isinstance(session, dict) else session, "session id")
        known = self._sessions.get_session(name) if self._sessions is not None else None
        if known is None:
            raise refuse(f"there is no session {name!r}; create one with PUT /session/")
        return Path(known.image)

    def _state_folder(self, datastore: Datastore) -> Path:
        """Where the registry and the cache live: with the studies, or, for remote ones, with their local copies."""
        local = getattr(datastore, "_datastore_path", None)
        return (Path(local) if local else self._embedded) / ".proxyprompt"

    def _versions(self) -> list[str]:
        return available_versions(self.options.foundation, self._weights)

    def _build(self, version: str):
        options = self.options
        return build_segmenter(
            foundation=options.foundation,
            weights_dir=self._weights,
            image_size=options.image_size,
            adapter=version,
            dense_proxy=options.use_dense_proxy(),
            device=self._device,
            verify=not options.allow_unverified_weights,
        )

    def _describer(self):
        """The encoder behind retrieval: always the embedded ``atto``, whatever foundation serves."""
        own = any(self._weights.glob("atto-*.safetensors"))
        folder = self._weights if own else self._embedded
        return build_foundation("atto", image_size=DESCRIPTOR_PIXELS, weights_dir=folder)

    def _index(self) -> None:
        try:
            self.library.refresh()
            self.library.index_in_background()
        except Exception:
            logger.exception("the labelled studies could not be indexed in the background; requests will do it")
