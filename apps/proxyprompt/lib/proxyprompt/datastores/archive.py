"""A DICOMweb server (PACS, Orthanc): which series of images it holds, and which DICOM SEG is the label of each."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from pydicom.dataset import Dataset
from requests.exceptions import RequestException

from proxyprompt.io.dicom import NOT_IMAGES
from proxyprompt.io.files import replacing

logger = logging.getLogger(__name__)

_KEPT_TAGS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "PatientID"),
    *("StudyDate", "StudyTime"),
)


@dataclass(frozen=True)
class Seg:
    """A DICOM SEG. image: the series it was drawn on. seen: the number of the listing in which it first appeared.

    order: that, and then the time at which it says it was made: clocks of workstations differ, arrival does not lie.
    """

    image: str
    study: str
    series: str
    instance: str
    made: str
    seen: int

    @property
    def order(self) -> tuple[int, str]:
        """What two of them are compared by: when each was seen, and made."""
        return self.seen, self.made


@dataclass(frozen=True)
class Listing:
    """images: tags of each series, by its UID. labels: the newest SEG of each image that has one."""

    images: Mapping[str, Mapping[str, str]]
    labels: Mapping[str, Seg]


class Archive:
    """The server as a client sees it. Thread safe.

    search_filter: of the series that are images; Modality may be several with commas between. Whatever it says, a SEG
    or another object without pixels is none.
    expiry: seconds for which a listing holds. Every method that asks the server raises MONAILabelException (server
    error) when it does not answer, or refuses.
    """

    def __init__(self, client: DICOMwebClient, search_filter: Mapping[str, Any], *, expiry: float) -> None:
        self.client, self._expiry = client, expiry
        self._search_filter, self._modalities = _modalities_apart(search_filter)
        self._lock = threading.RLock()
        self._segs: dict[tuple[str, str], list[Seg]] = {}
        self._listings = 0
        self._listing = Listing({}, {})
        self._listed_at = float("-inf")

    def forget(self) -> None:
        """Something was stored: the server is asked again at the next call."""
        with self._lock:
            self._listed_at = float("-inf")

    def listing(self) -> Listing:
        """What the archive holds; asked for again when the last answer is too old."""
        with self._lock:
            if time.monotonic() - self._listed_at > self._expiry:
                with self._asked():
                    self._listing = self._list()
                self._listed_at = time.monotonic()
            return self._listing

    def fetch_series(self, study: str, series: str, folder: Path) -> None:
        """Writes every instance of a series into a new folder, which appears when it is whole."""
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
            beside = Path(temporary) / series
            beside.mkdir()
            with self._asked():
                for instance in self.client.retrieve_series(study, series):
                    instance.save_as(beside / f"{instance.SOPInstanceUID}.dcm")
            beside.rename(folder)

    def fetch_seg(self, seg: Seg, path: Path) -> None:
        """Writes a SEG, beside and then renamed."""
        with replacing(path) as beside, self._asked():
            self.client.retrieve_instance(seg.study, seg.series, seg.instance).save_as(beside)

    def store(self, instance: Dataset) -> None:
        """Send an object to the archive."""
        with self._asked():
            self.client.store_instances([instance])
        self.forget()

    # inside

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except RequestException as error:
            raise MONAILabelException(
                MONAILabelError.SERVER_ERROR,
                f"the DICOMweb server {self.client.base_url} does not do its part: {error}; check that it runs, and "
                "that --studies and the credentials are right",
            ) from error

    def _list(self) -> Listing:
        self._listings += 1
        found = [Dataset.from_json(s) for s in self.client.search_for_series(search_filters=self._search_filter)]
        images = {
            str(tags.SeriesInstanceUID): {name: str(tags.get(name)) for name in _KEPT_TAGS if tags.get(name)}
            for tags in found
            if self._is_image(str(tags.get("Modality")))
        }
        self._segs = self._list_segs()
        drawn = sorted((seg for several in self._segs.values() for seg in several), key=lambda seg: seg.order)
        return Listing(images, {seg.image: seg for seg in drawn if seg.image in images})

    def _is_image(self, modality: str) -> bool:
        return modality not in NOT_IMAGES and (not self._modalities or modality in self._modalities)

    def _list_segs(self) -> dict[tuple[str, str], list[Seg]]:
        """(series, number of instances) -> its SEGs; a series is looked into when it is new or has grown."""
        counted = self.client.search_for_series(
            search_filters={"Modality": "SEG"}, fields=["NumberOfSeriesRelatedInstances"]
        )
        segs = {}
        for tags in map(Dataset.from_json, counted):
            series = str(tags.SeriesInstanceUID)
            key = series, str(tags.get("NumberOfSeriesRelatedInstances", ""))
            segs[key] = self._segs[key] if key in self._segs else self._look_into(str(tags.StudyInstanceUID), series)
        return segs

    def _look_into(self, study: str, series: str) -> list[Seg]:
        known = {seg.instance: seg for several in self._segs.values() for seg in several}
        found = []
        for tags in map(Dataset.from_json, self.client.retrieve_series_metadata(study, series)):
            instance, referenced = str(tags.SOPInstanceUID), tags.get("ReferencedSeriesSequence")
            if not referenced:
                logger.warning("SEG %s does not say on which series it was drawn: it is nobody's label", instance)
                continue
            made = f"{tags.get('ContentDate', '')}{tags.get('ContentTime', '')}"
            image = str(referenced[0].SeriesInstanceUID)
            found.append(known.get(instance) or Seg(image, study, series, instance, made, self._listings))
        return found


def _modalities_apart(search_filter: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The filter for the server, and the modalities to choose from what it finds (none for all).

    DICOMweb knows no list of modalities, though some servers do.
    """
    modalities = str(search_filter.get("Modality", ""))
    if "," not in modalities:
        return dict(search_filter), frozenset()
    rest = {tag: value for tag, value in search_filter.items() if tag != "Modality"}
    return rest, frozenset(modalities.split(","))
