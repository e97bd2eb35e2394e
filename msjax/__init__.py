"""msjax: whether, how much and how long a language model should revise its answer.

The names below are loaded when they are first used, so that `import msjax` and the command line
stay quick.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Completion": "msjax.llm.engine",
    "Decision": "msjax.rules.protocol",
    "Engine": "msjax.llm.engine",
    "FlaxEngine": "msjax.llm.flax.engine",
    "InputError": "msjax.errors",
    "Observation": "msjax.rules.protocol",
    "StoppingRule": "msjax.rules.protocol",
    "Trajectory": "msjax.data.store",
    "TwoStateChain": "msjax.theory.chain",
    "Usage": "msjax.data.usage",
    "fixed_rounds": "msjax.rules.fixed",
    "plan_rounds": "msjax.rules.markovscale",
    "posterior_rounds": "msjax.rules.markovscale",
    "read_runs": "msjax.data.store",
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
