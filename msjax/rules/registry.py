"""Rules by name, as `msjax replay` compares them: what each may vary, needs and is told.

An entry has a grid of settings. Nothing here chooses one: that is done on other questions than
those that are reported (`msjax.evaluate.crossfit`).
"""

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.rules.round_rules import round_rules
from msjax.rules.sample_rules import sample_rules
from msjax.rules.spec import NEEDS, Entry, offered_by

__all__ = ["entries", "rule_names"]


def rule_names() -> tuple[str, ...]:
    """Every name that `entries` may return."""
    return (*(e.name for e in sample_rules(64)), *(e.name for e in round_rules(8)))


def entries(pool: Runs, names: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """The rules that this pool allows, or those of them that are named.

    Raises InputError for a name that is not known, and for a named rule that the pool does not
    allow: made for samples or for rounds only, or in need of scores or answers that are missing.
    """
    offered = sample_rules(pool.samples) if pool.parallel else round_rules(pool.samples)
    known = {entry.name: entry for entry in offered}
    has = offered_by(pool)
    for name in names:
        if name not in rule_names():
            raise InputError(f"rules: {name!r} is unknown; known are {', '.join(rule_names())}")
        if name not in known:
            kind = "parallel" if pool.parallel else "sequential"
            raise InputError(f"rules: {name!r} does not apply to {pool.name}, which is {kind}")
        missing = known[name].needs - has
        if missing:
            raise InputError(
                f"rules: {name!r} needs {NEEDS[min(missing)]}, which {pool.name} does not have"
            )
    return tuple(
        entry
        for entry in offered
        if (entry.name in names if names else True) and entry.needs <= has
    )
