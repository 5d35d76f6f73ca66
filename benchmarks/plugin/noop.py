"""An enricher that does nothing, so that what is left is the daemon's own cost."""

from collections.abc import Sequence

from enrichers.contract import Enricher, Failure, Form, Loader, Result
from enrichers.image import Image


class Noop(Enricher):
    """Answers every image with nothing."""

    name = "noop"
    version = 1

    @property
    def form(self) -> Form:
        return Form(32)

    @property
    def max_batch(self) -> int:
        return 128

    def load(self, loader: Loader) -> None:
        pass

    def enrich(self, images: Sequence[Image]) -> Sequence[Result | Failure]:
        return [Result({}) for _ in images]
