"""The app that MONAI Label starts: settings, datastore, tasks."""

from __future__ import annotations

import logging
import sys
import threading
import time
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from monailabel.config import settings as server_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))  # the app is whole without an installed package

from proxyprompt import __version__
from proxyprompt.activelearning.disagreement import SupportDisagreement
from proxyprompt.activelearning.idle import BackgroundScoring, Idle
from proxyprompt.activelearning.quality import SupportQuality
from proxyprompt.activelearning.strategies import Chosen, FirstUnlabelled, MostDisagreement, RandomUnlabelled
from proxyprompt.datastores.dicomweb import DicomWebStudies, open_archive
from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.datastores.notes import DISAGREEMENT, QUALITY
from proxyprompt.errors import in_task_process, refuse, starting
from proxyprompt.foundation import CheckpointError, build_foundation, weights_identity
from proxyprompt.foundation.base import Foundation
from proxyprompt.infers.batch import BatchInfer
from proxyprompt.infers.models import Models
from proxyprompt.infers.proxyprompt import DISCLAIMER, ProxyPromptInfer
from proxyprompt.infers.proxyprompt_edit import ProxyPromptEdit
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.errors import StudyError
from proxyprompt.io.files import check_writable
from proxyprompt.io.intensity import IntensitySettings
from proxyprompt.io.labels import StructureRegistry, parse_labels
from proxyprompt.predictor.adapters import AdapterError, AdapterStore
from proxyprompt.predictor.progress import FollowedRequests
from proxyprompt.predictor.segmenter import Segmenter, available_versions, build_segmenter
from proxyprompt.requests.defaults import set_defaults
from proxyprompt.requests.record import note_request
from proxyprompt.requests.safety import SafeSessions, check_id, guard, image_path
from proxyprompt.server.install import install
from proxyprompt.server.limits import RequestBounds
from proxyprompt.server.metrics import Metrics
from proxyprompt.server.operations import Operations, readiness
from proxyprompt.server.panel import panel_router
from proxyprompt.server.progress import progress_router
from proxyprompt.server.request_log import RequestLog
from proxyprompt.server.studies import downloaded
from proxyprompt.server.worklist import reason
from proxyprompt.session.journal import Journal
from proxyprompt.session.proposals import Proposals
from proxyprompt.session.recorder import Recorder
from proxyprompt.session.submit import take_in
from proxyprompt.settings import Settings, SettingsError
from proxyprompt.supports.descriptors import DescriptorIndex
from proxyprompt.supports.support import SupportLibrary
from proxyprompt.trainers.proxyprompt import ProxyPromptTrain
from proxyprompt.training.finetune_config import FinetuneConfig
from proxyprompt.viewer.serve import install_pages, install_viewer

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
        self._idle = Idle()
        self._requests = FollowedRequests()
        self._background: BackgroundScoring | None = None
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Proxy Prompt",
            description=f"In-context segmentation: a labelled study tells what to segment in another. {DISCLAIMER}",
            version=__version__,
        )

    # what the base class asks for

    def init_datastore(self) -> Datastore:
        """Open the studies, and build what belongs to them: cache, registry, library of supports."""
        with starting(StudyError, OSError):
            datastore = guard(self._open_studies())
        self._state = folder = self._state_folder(datastore)
        with starting(StudyError):
            check_writable(folder)
        cache = ContentCache(
            self.options.cache_dir or folder / "cache",
            memory_bytes=self.options.cache_memory_mb * MEGABYTE,
            disk_bytes=self.options.cache_disk_mb * MEGABYTE,
        )
        with starting(StudyError):
            registry = StructureRegistry(folder / "structures.json")
            for name in chain(*parse_labels(self.options.labels)):  # can be clicked before any label has them
                registry.ensure(name)
            self.library = SupportLibrary(
                datastore,
                registry,
                descriptors=DescriptorIndex(self._describer, cache),
                cache=cache,
                intensity=IntensitySettings.parse(self.options.window),
                conf_labels=self.options.labels,
            )
        self.cache = cache
        self.proposals = Proposals(folder / "proposals")
        self.recorder = Recorder(Journal(folder / "journal.jsonl"), self.library, self.proposals)
        return datastore

    def init_infers(self) -> dict[str, ProxyPromptInfer]:
        """The tasks for inference, by name."""
        self.models = Models(self._build, self._versions, self.options.adapter)
        parts = {
            "models": self.models,
            "library": self.library,
            "cache": self.cache,
            "proposals": self.proposals,
            "supports": self.options.supports,
            "paper": self.options.paper,
        }
        return {NAME: ProxyPromptInfer(**parts), f"{NAME}_edit": ProxyPromptEdit(**parts)}

    def init_trainers(self) -> dict[str, ProxyPromptTrain]:
        """The task for training, by name."""
        foundation = self.options.foundation
        task = ProxyPromptTrain(
            name=NAME,
            models=self.models,
            store=lambda: self.adapters,
            build=partial(self._build, merge=False),
            library=self.library,
            folder=self._state / "training",
            device=self._device,
            defaults=FinetuneConfig.paper() if self.options.paper else FinetuneConfig.defaults(foundation),
        )
        return {NAME: task}

    def init_batch_infer(self) -> BatchInfer:
        """What segments many studies."""
        return BatchInfer()

    def init_strategies(self) -> dict[str, Strategy]:
        """Viewers ask for ``random`` whatever their user chose; it is the one that the operator chose."""
        strategies = {
            "random": RandomUnlabelled(),
            "first": FirstUnlabelled(),
            "disagreement": MostDisagreement(self.library),
        }
        return {**strategies, "random": Chosen(strategies, self.options.next_sample)}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """What scores studies, by name."""
        parts = {"models": self.models, "library": self.library, "cache": self.cache, "pause": self._idle.wait}
        return {
            DISAGREEMENT: SupportDisagreement(**parts, supports=self.options.supports),
            QUALITY: SupportQuality(**parts),
        }

    def _download_dcmqi_tools(self) -> None:
        """Dcmqi is among the requirements; nothing is fetched from the internet at start."""

    def _load_sessions(self, load: bool = False) -> SafeSessions | None:
        if not load:
            return None
        return SafeSessions(server_settings.MONAI_LABEL_SESSION_PATH, server_settings.MONAI_LABEL_SESSION_EXPIRY)

    def on_init_complete(self) -> None:
        """The server is about to take requests: the weights must be there now, not at the first request."""
        served = install(
            self,
            journal=self.recorder.journal,
            adapters=lambda: self.adapters,
            library=self.library,
            operations=self._operations(),
            model_upload=self.options.model_upload,
        )
        if served:
            server = sys.modules["monailabel.app"].app
            panel = panel_router(self.library, self._infers[NAME].disagreement)
            for router in (panel, progress_router(self._requests)):
                server.include_router(router)
            if isinstance(self.datastore(), DicomWebStudies):
                install_viewer(server, self._state / "viewer")
            install_pages(server)
        with starting(CheckpointError, AdapterError, ValueError):
            self.models.get()
        threading.Thread(target=self._index, name="library", daemon=True).start()
        if self.options.background_scoring:
            self._background = BackgroundScoring(list(self._scoring_methods.values()), self.datastore())
            self._background.wake()
        super().on_init_complete()

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """A label came in: what was computed from the one before goes, and the study is a support from now on."""
        self._take_in(image_id)

    # requests

    def info(self) -> dict[str, Any]:
        """What viewers show. Every task tells of the labelled studies: one look at their files serves all."""
        with self.library.catalogue.one_look():
            return super().info()

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run the task of ``request["model"]`` on an image of the datastore.

        MONAI Label's own version takes any path that exists for an image; here an image is what the datastore lists,
        or a file that a session of this server holds.
        """
        store = datastore or self.datastore()
        model = request.get("model")
        task = self._infers.get(model) if isinstance(model, str) else None
        if task is None:
            raise refuse(f"there is no model {model!r}; valid: {', '.join(self._infers)}")
        image = request.get("image")
        session = request.get("session")
        if session is not None:
            image = self._session_file(session)
        else:
            image_path(store, image)
        tag = check_id(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value, "label tag")
        started = time.time()
        with self._idle.request(), self._requests.following(request.get("request_id")):
            path, answer = task({**request, "image": image})
        answer["busy"] = [started, time.time()]
        note_request(
            study=str(request.get("image") or "") if session is None else "",
            supports=list(dict.fromkeys(used["id"] for used in answer["supports"])),
            version=answer["adapter"],
            seconds_of=answer["latencies"],
            user=request.get("client_id"),
        )
        if session is None:
            self.recorder.proposal(image, request, answer)
        result = {"label": path, "tag": DefaultLabelTag.ORIGINAL, "file": path, "params": answer}
        if request.get("save_label") and session is None:
            result["label"] = store.save_label(image, path, tag, {"model": request["model"], "params": answer})
            result["tag"] = tag
            if tag == DefaultLabelTag.FINAL.value:
                self._take_in(image)
        return result

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the task of ``request["model"]``; see :class:`ProxyPromptTrain` for what it returns.

        In a training's own process, the last words of which are what the user sees of a failure, these are the message
        alone.
        """
        try:
            return super().train(request)
        except MONAILabelException as error:
            if in_task_process():
                raise SystemExit(error.msg) from None
            raise

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """As MONAI Label does; refuses an unknown strategy."""
        strategy = "random" if request.get("strategy") in (None, "") else request["strategy"]
        if not isinstance(strategy, str) or strategy not in self._strategies:
            raise refuse(f"there is no strategy {strategy!r}; valid: {', '.join(self._strategies)}")
        sample = super().next_sample(request)
        if not sample:
            return sample
        store = self.datastore()
        return {**sample, **downloaded(store, sample["id"]), "reason": reason(store.get_image_info(sample["id"]))}

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Whole-slide requests name regions of files by path; this app has nothing for them."""
        raise refuse("whole-slide inference is not offered by this app; use POST /infer/proxyprompt?image=ID")

    def model_file(self, model: str, validate: bool = True) -> str | None:
        """The file of the trained version that serves by default; None where that is the foundation's own."""
        path = self.adapters.path(self.models.versions()[0])
        return str(path) if model in self._infers and path.is_file() else None

    def sessions(self) -> SafeSessions | None:
        """The uploaded images that are not in the datastore."""
        return self._sessions

    # inside

    def _operations(self) -> Operations:
        options = self.options
        return Operations(
            bounds=RequestBounds(options.upload_mb * MEGABYTE, options.upload_seconds, options.requests_per_minute),
            metrics=Metrics(cache=self.cache.stats, version=__version__),
            log=RequestLog(self._state / "logs", plain_ids=options.log_ids),
            checks=readiness(datastore=self.datastore(), folder=self._state, versions=self.models.versions),
        )

    def _take_in(self, image_id: str) -> None:
        take_in(image_id, datastore=self.datastore(), library=self.library, proposals=self.proposals)
        self.recorder.label(image_id)
        if self._background is not None:
            self._background.wake()

    def _open_studies(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()  # which calls _init_dicomweb_datastore()
        return StudyFolder(
            self.studies,
            extensions=server_settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=server_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            # A task's own process must not write down what it has not seen of the server's changes.
            read_only=server_settings.MONAI_LABEL_DATASTORE_READ_ONLY or in_task_process(),
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

    @cached_property
    def adapters(self) -> AdapterStore:
        """The trained versions, beside the studies. Made when first needed: large weights take a while to hash."""
        verify = not self.options.allow_unverified_weights
        name, sha256 = weights_identity(self.options.foundation, self._weights, verify=verify)
        return AdapterStore(self._state / "adapters", foundation=name, foundation_sha256=sha256)

    def _versions(self) -> list[str]:
        return available_versions(self.adapters.foundation, self._weights, self.adapters)

    def _build(self, version: str, *, merge: bool = True) -> Segmenter:
        options = self.options
        return build_segmenter(
            foundation=self.adapters.foundation,
            weights_dir=self._weights,
            image_size=options.image_size,
            adapter=version,
            adapters=self.adapters,
            device=self._device,
            verify=not options.allow_unverified_weights,
            merge=merge,
        )

    def _describer(self) -> Foundation:
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
