"""Compares the plan that the database holds with the one that the configuration asks for."""

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.clock import utc_now
from daemon.plan import Plan
from daemon.store.images import Images
from daemon.store.state import State, StoredPlan
from enrichers.errors import EnrichdError


class PlanDiffers(EnrichdError):
    """The enabled enrichers differ from the active plan; `enrichd activate` makes them the plan."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What activating a plan would change."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]  #: enrichers whose fingerprint is another one

    @property
    def nothing(self) -> bool:
        return not (self.added or self.removed or self.changed)

    def __str__(self) -> str:
        parts = [("new", self.added), ("gone", self.removed), ("changed", self.changed)]
        return "; ".join(f"{label}: {', '.join(names)}" for label, names in parts if names) or "nothing"


def difference(active: Plan, wanted: Plan) -> Difference:
    """What is different in `wanted`, by enricher."""
    before = {step.name: step.fingerprint for step in active.steps}
    after = {step.name: step.fingerprint for step in wanted.steps}
    return Difference(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
    )


async def require_active(state: State, images: Images, wanted: Plan) -> StoredPlan:
    """The stored plan, which must be `wanted`. Where nothing was ever enriched it is activated; else a difference
    raises PlanDiffers."""
    stored = await state.plan()
    if stored is None or (stored.plan.hash != wanted.hash and not await images.any_enriched()):
        return await state.activate(wanted, utc_now())
    if stored.plan.hash != wanted.hash:
        raise PlanDiffers(
            f"The enabled enrichers differ from the active plan ({difference(stored.plan, wanted)}). "
            "`enrichd activate --dry-run` tells how many documents become stale, `enrichd activate` makes it so."
        )
    return stored


async def require_unchanged(state: State, running: Plan) -> None:
    """Raises PlanDiffers where another plan than `running` was activated meanwhile."""
    stored = await state.plan()
    if stored is not None and stored.plan.hash != running.hash:
        raise PlanDiffers(
            f"Another plan was activated while this daemon ran ({difference(running, stored.plan)}); it stops, so that "
            "the two do not undo each other's work. Start it again, with the configuration of the active plan."
        )


async def count_affected(images: Images, stored: StoredPlan | None) -> Mapping[str, int]:
    """How many documents of which state the activation of another plan would make stale; unreadable ones lack nothing
    until their source changes, so they are not among them."""
    return {} if stored is None else await images.count_answered(stored.plan.hash)
