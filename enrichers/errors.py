"""The errors that enrichers, decoding and the model store raise; a class's docstring is its default message."""


class EnrichdError(Exception):
    """Something went wrong in enrichd."""

    #: whether the same call can succeed later without anything being changed
    transient: bool = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ImageRefused(EnrichdError):
    """The file is not an image that enrichd reads."""


class UnknownFormat(ImageRefused):
    """The bytes are no image format that enrichd knows."""


class UnsupportedFormat(ImageRefused):
    """The format is known, and enrichd does not read it."""


class CorruptImage(ImageRefused):
    """The image is damaged: it ends too early or its data cannot be decoded."""


class ImageTooLarge(ImageRefused):
    """The image has more pixels or bytes than the configured limit."""


class ModelMissing(EnrichdError):
    """A model's weights are not in the cache; `enrichd models pull` fetches them."""


class ModelCorrupt(EnrichdError):
    """A model's weights do not have the SHA-256 that the catalogue gives."""


class ModelUnknown(EnrichdError):
    """No model of that name is in the catalogue."""


class PullFailed(EnrichdError):
    """A model's weights could not be fetched."""

    transient = True


class DeviceUnavailable(EnrichdError):
    """The configured device is not there; use device = "cpu" or install its runtime."""


class EnricherUnknown(EnrichdError):
    """No enricher of that name is installed."""


class SettingInvalid(EnrichdError):
    """A setting is unknown or has a value that it cannot have."""


class EnricherFailed(EnrichdError):
    """An enricher could not answer for an image."""


class OutOfMemory(EnricherFailed):
    """The device ran out of memory for this batch."""

    transient = True
