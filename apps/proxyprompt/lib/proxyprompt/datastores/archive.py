"""A DICOMweb server (PACS, Orthanc): which series of images it holds, and which DICOM SEGs were drawn on each."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from pydicom.dataset import Dataset
from requests.exceptions import RequestException

from proxyprompt.errors import Refusal
from proxyprompt.io.dicom import is_image
from proxyprompt.io.dicom_seg_writer import MAKER
from proxyprompt.io.files import replacing

from .refreshed import Refreshed
from .unreachable import is_refusal, why_not

logger = logging.getLogger(__name__)

_KEPT_TAGS = (
    *("StudyInstanceUID", "SeriesInstanceUID", "StudyDescription", "SeriesDescription", "Modality", "PatientID"),
    *("StudyDate", "StudyTime", "BodyPartExamined", "ProtocolName"),
)
_ASKED_FOR = ("BodyPartExamined", "ProtocolName", "StudyDescription", "SeriesDescription")
"""Tags of a series that a server need not tell unasked."""
_LOOKED_AT = 20
"""Objects of a series among which an image must be; a series of images begins with one."""
_AT_ONCE = 8
"""Series that are looked into at the same time."""


@dataclass(frozen=True)
class Seg:
    """A DICOM SEG.

    Attributes:
        image: the series it was drawn on.
        study: that it belongs to.
        series: its own.
        instance: its own.
        made: the time at which it says it was made, as DICOM has it.
        seen: the number of the listing in which it first appeared.
        by: who made it, as it says; "" where it does not.
        time: when, ISO 8601 in UTC; "" where it does not say.
        structures: names of its segments.
    """

    image: str
    study: str
    series: str
    instance: str
    made: str
    seen: int
    by: str = ""
    time: str = ""
    structures: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, str]:
        """What two of them are compared by: when each was seen, and made.

        Clocks of workstations differ, arrival does not lie.
        """
        return self.seen, self.made


@dataclass(frozen=True)
class Listing:
    """What an archive holds.

    Attributes:
        images: tags of each series, by its UID.
        drawn: the SEGs of each image that has one, the newest last.
    """

    images: Mapping[str, Mapping[str, str]]
    drawn: Mapping[str, tuple[Seg, ...]]

    @property
    def labels(self) -> dict[str, Seg]:
        """The newest SEG of each image that has one."""
        return {image: segs[-1] for image, segs in self.drawn.items()}


class Archive:
    """The server as a client sees it. Thread safe.

    Every method that asks the server raises MONAILabelException when it does not answer (server error), or refuses
    (bad input).

    Args:
        client: speaks with it.
        search_filter: of the series that are images; Modality may be several with commas between. Whatever it says, a
            SEG or another object without pixels is none.
        expiry: seconds for which a listing holds.
    """

    def __init__(self, client: DICOMwebClient, search_filter: Mapping[str, Any], *, expiry: float) -> None:
        self.client = client
        self.client.set_http_retry_params(retry=False)  # it waits for half a minute and keeps others waiting
        self._search_filter, self._modalities = _modalities_apart(search_filter)
        self._segs: dict[tuple[str, str], list[Seg]] = {}
        self._images: dict[str, bool] = {}
        self._numbered = 0
        self._stored: dict[str, tuple[Seg, float]] = {}  # SEGs that no listing can have seen yet, and since when
        self._turn = threading.Lock()
        self._listings = Refreshed(self._list, expiry=expiry)

    @property
    def problem(self) -> str:
        """Why the server could not be asked the last time, in a sentence; "" where it could."""
        failure = self._listings.failure
        if failure is None:
            return ""
        return failure.msg if isinstance(failure, MONAILabelException) else self._sentence("cannot be understood")

    def forget(self) -> None:
        """Something was stored: the server is asked again at the next call."""
        self._listings.forget()

    def listing(self) -> Listing:
        """What the archive holds; asked for again when the last answer is too old.

        Of an archive that is away or slow it is the last one known.
        """
        try:
            return self._with_stored(self._listings.get())
        except TimeoutError as error:
            raise self._error(MONAILabelError.SERVER_ERROR, "does not answer in time") from error

    def newest_listing(self) -> Listing:
        """What the archive holds now, asked for anew."""
        try:
            return self._with_stored(self._listings.newer())
        except TimeoutError as error:
            raise self._error(MONAILabelError.SERVER_ERROR, "does not answer in time") from error

    def fetch_series(self, study: str, series: str, folder: Path) -> None:
        """Write every instance of a series into a new folder, which appears when it is whole.

        Args:
            study: UID.
            series: UID.
            folder: that does not exist yet.
        """
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
            beside = Path(temporary) / series
            beside.mkdir()
            with self._asked():
                for instance in self.client.retrieve_series(study, series):
                    instance.save_as(beside / f"{instance.SOPInstanceUID}.dcm")
            beside.rename(folder)

    def fetch_seg(self, seg: Seg, path: Path) -> None:
        """Write a SEG, beside and then renamed.

        Args:
            seg: which.
            path: of the file.
        """
        with replacing(path) as beside, self._asked():
            self.client.retrieve_instance(seg.study, seg.series, seg.instance).save_as(beside)

    def store(self, instance: Dataset) -> None:
        """Send an object to the archive. Sending it twice is sending it once.

        Args:
            instance: the object.
        """
        with self._asked():
            answer = self.client.store_instances([instance])
        refused = answer.get("FailedSOPSequence") if answer is not None else None
        if refused:
            code = refused[0].get("FailureReason", "unknown")
            raise self._error(MONAILabelError.INVALID_INPUT, f"did not store the object (reason {code})")
        if instance.get("ReferencedSeriesSequence"):
            with self._turn:
                seg = seg_of(instance, self._numbered + 1)
                self._stored[seg.instance] = seg, time.monotonic()
        self.forget()

    # inside

    def _with_stored(self, listing: Listing) -> Listing:
        """A listing that was asked for before something was stored does not deny it."""
        with self._turn:
            stored = [seg for seg, _ in self._stored.values() if seg.image in listing.images]
        if not stored:
            return listing
        drawn = dict(listing.drawn)
        for seg in stored:
            others = tuple(each for each in drawn.get(seg.image, ()) if each.instance != seg.instance)
            drawn[seg.image] = (*others, seg)
        return Listing(listing.images, drawn)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except RequestException as error:
            kind = MONAILabelError.INVALID_INPUT if is_refusal(error) else MONAILabelError.SERVER_ERROR
            raise self._error(kind, why_not(error)) from error

    def _error(self, kind: MONAILabelError, what: str) -> MONAILabelException:
        return Refusal(kind, self._sentence(what))

    def _sentence(self, what: str) -> str:
        return (
            f"the DICOMweb server {self.client.base_url} {what}; check that it runs, and that --studies and the "
            "credentials are right"
        )

    def _list(self) -> Listing:
        begun = time.monotonic()
        with self._asked():
            self._numbered += 1
            found = [
                Dataset.from_json(series)
                for series in self.client.search_for_series(search_filters=self._search_filter, fields=[*_ASKED_FOR])
            ]
            wanted = [tags for tags in found if not self._modalities or tags.get("Modality") in self._modalities]
            self._look_at([tags for tags in wanted if str(tags.SeriesInstanceUID) not in self._images])
            images = {
                str(tags.SeriesInstanceUID): {name: str(tags.get(name)) for name in _KEPT_TAGS if tags.get(name)}
                for tags in wanted
                if self._images[str(tags.SeriesInstanceUID)]
            }
            self._segs = self._list_segs()
        drawn: dict[str, list[Seg]] = defaultdict(list)
        for seg in sorted((seg for several in self._segs.values() for seg in several), key=lambda seg: seg.order):
            if seg.image in images:
                drawn[seg.image].append(seg)
        with self._turn:
            self._stored = {i: (seg, since) for i, (seg, since) in self._stored.items() if since >= begun}
        return Listing(images, {image: tuple(segs) for image, segs in drawn.items()})

    def _look_at(self, series: list[Dataset]) -> None:
        """Find out which of these series are images: by what their objects are, not by what they are called."""
        with ThreadPoolExecutor(_AT_ONCE, "look") as several:
            for tags, image in zip(series, several.map(self._holds_image, series), strict=True):
                self._images[str(tags.SeriesInstanceUID)] = image
                if not image:
                    logger.info("series %s (%s) holds no image", tags.SeriesInstanceUID, tags.get("Modality"))

    def _holds_image(self, tags: Dataset) -> bool:
        instances = self.client.search_for_instances(
            str(tags.StudyInstanceUID),
            str(tags.SeriesInstanceUID),
            fields=["SOPClassUID", "Rows", "Columns"],
            limit=_LOOKED_AT,
        )
        self._listings.sign_of_life()
        return any(is_image(Dataset.from_json(instance)) for instance in instances)

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
        described = self.client.retrieve_series_metadata(study, series)
        self._listings.sign_of_life()
        for tags in map(Dataset.from_json, described):
            instance = str(tags.SOPInstanceUID)
            if not tags.get("ReferencedSeriesSequence"):
                logger.warning("SEG %s does not say on which series it was drawn: it is nobody's label", instance)
                continue
            found.append(known.get(instance) or seg_of(tags, self._numbered))
        return found


def seg_of(tags: Dataset, seen: int = 0) -> Seg:
    """What a SEG says of itself.

    Args:
        tags: of the SEG, which says on which series it was drawn.
        seen: the number of the listing in which it appeared.

    Returns:
        That.
    """
    creator = str(tags.get("ContentCreatorName") or "")
    return Seg(
        image=str(tags.ReferencedSeriesSequence[0].SeriesInstanceUID),
        study=str(tags.get("StudyInstanceUID", "")),
        series=str(tags.get("SeriesInstanceUID", "")),
        instance=str(tags.SOPInstanceUID),
        made=f"{tags.get('ContentDate', '')}{tags.get('ContentTime', '')}",
        seen=seen,
        by="" if creator == MAKER else creator,
        time=_time_of(tags),
        structures=tuple(str(s.get("SegmentLabel") or "") for s in tags.get("SegmentSequence") or ()),
    )


def _time_of(tags: Dataset) -> str:
    """Content date and time in UTC, ISO 8601; one without a zone is taken for this machine's."""
    text = f"{tags.get('ContentDate', '')}{str(tags.get('ContentTime', '')).partition('.')[0]}"
    zone = str(tags.get("TimezoneOffsetFromUTC") or "")
    try:
        when = datetime.strptime(text, "%Y%m%d%H%M%S")
        if zone:
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
            when = when.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset))
        return when.astimezone(UTC).isoformat(timespec="seconds")
    except ValueError:
        return ""


def _modalities_apart(search_filter: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The filter for the server, and the modalities to choose from what it finds (none for all).

    DICOMweb knows no list of modalities, though some servers do.
    """
    modalities = str(search_filter.get("Modality", ""))
    if "," not in modalities:
        return dict(search_filter), frozenset()
    rest = {tag: value for tag, value in search_filter.items() if tag != "Modality"}
    return rest, frozenset(modalities.split(","))
