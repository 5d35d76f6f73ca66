"""Opens the face detector that a catalogue entry describes."""

from collections.abc import Callable, Mapping

from enrichers.catalogue import Catalogue, Entry, nearest
from enrichers.contract import Loader
from enrichers.detection import Detector
from enrichers.errors import SettingInvalid
from enrichers.runtimes import Plan


def _centerface(entry: Entry, loader: Loader) -> Detector:
    from enrichers.centerface import CenterFace

    return CenterFace(loader.network(entry.name))


def _yunet(entry: Entry, loader: Loader) -> Detector:
    from enrichers.yunet import YuNet

    return YuNet(loader.network(entry.name), entry.options)


def _dlib(entry: Entry, loader: Loader) -> Detector:
    from enrichers.dlib_detectors import DlibDetector
    from enrichers.runtimes.dlib import DlibNetwork

    if "detector" in entry.parts:
        detector = loader.network(entry.parts["detector"])
    else:  # dlib carries it in itself
        detector = DlibNetwork(None, Plan(loader.device, loader.threads, options={"kind": "hog"}))
    return DlibDetector(detector, loader.network(entry.parts["landmarks"]))


def _mtcnn(entry: Entry, loader: Loader) -> Detector:
    from enrichers.mtcnn import MTCNN

    return MTCNN(*(loader.network(entry.parts[part]) for part in ("proposals", "refinement", "output")))


#: `form` of a catalogue entry → what opens it
FORMS: Mapping[str, Callable[[Entry, Loader], Detector]] = {
    "centerface": _centerface,
    "yunet": _yunet,
    "dlib_detector": _dlib,
    "mtcnn": _mtcnn,
}


def check_detector(name: str, catalogue: Catalogue) -> Entry:
    """The detector's catalogue entry. Raises ModelUnknown, and SettingInvalid where it is no face detector."""
    entry = catalogue.entry(name)
    if entry.form not in FORMS:
        others = [other.name for other in catalogue if other.form in FORMS]
        raise SettingInvalid(f"{name!r} is no face detector{nearest(name, others)}")
    return entry


def open_detector(name: str, catalogue: Catalogue, loader: Loader) -> Detector:
    """Raises ModelUnknown, ModelMissing, ModelCorrupt, SettingInvalid, DeviceUnavailable."""
    entry = check_detector(name, catalogue)
    return FORMS[str(entry.form)](entry, loader)
