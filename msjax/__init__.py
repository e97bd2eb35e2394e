"""msjax: whether, how much and how long a language model should revise its answer.

The names below are loaded when they are first used, so that `import msjax` and the command line
stay quick.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Completion": "msjax.generation.engine",
    "Decision": "msjax.stopping.protocol",
    "Engine": "msjax.generation.engine",
    "FlaxEngine": "msjax.generation.flax_engine",
    "InputError": "msjax.errors",
    "Observation": "msjax.stopping.protocol",
    "StoppingRule": "msjax.stopping.protocol",
    "Trajectory": "msjax.records",
    "TwoStateChain": "msjax.chain",
    "Usage": "msjax.generation.ledger",
    "fixed_rounds": "msjax.stopping.baselines",
    "plan_rounds": "msjax.stopping.markovscale",
    "posterior_rounds": "msjax.stopping.markovscale",
    "read_runs": "msjax.records",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'msjax' has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
