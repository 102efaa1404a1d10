"""Plans of patch sizes, and what tests read of them."""

from ditbench.methods.flexidit.choices import Layout, Patch
from ditbench.methods.plans import StepPlan


def patch_plan(t: float, patch: int, guide: int | None = None) -> StepPlan:
    """At patch size ``patch``, and at ``guide`` in the guidance branch."""
    return StepPlan(t, (Patch(patch),), None if guide is None else (Patch(guide),))


def sizes_of(plan: StepPlan) -> tuple[int | None, int | None]:
    """Patch size, and the guidance branch's where it is another."""
    first, second = (branch.get(Patch) for branch in plan.branches)
    return first and first.size, None if plan.guidance is None else second and second.size


def layout_of(plan: StepPlan) -> Layout | None:
    """How both branches ran in one call; None where each ran by itself."""
    return plan.get(Layout)
