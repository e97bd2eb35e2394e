"""msjax: does asking a language model again pay, when to stop, and how sure can one be.

    runs = msjax.read("pilot.jsonl")        # or Runs.from_arrays(correct, answers=..., tokens=...)
    msjax.fit(runs).summary()               # how often revising repairs and breaks answers
    msjax.decide(runs).rule                 # which rule to use, with what it gains and costs
    msjax.run(task, engine, rule=rule)      # ask a model, revise, stop, record
    await msjax.revise(ask, "17 * 23?")     # the same for one question, through your own function

The names below are loaded when they are first used, so that `import msjax` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msjax.data.importers.reading import read as read
    from msjax.data.messages import Completion as Completion
    from msjax.data.runs import Runs as Runs
    from msjax.data.trajectory import Trajectory as Trajectory
    from msjax.data.usage import Usage as Usage
    from msjax.decision.card import decide as decide
    from msjax.errors import InputError as InputError
    from msjax.llm.engine import Engine as Engine
    from msjax.llm.flax.engine import FlaxEngine as FlaxEngine
    from msjax.llm.openai_engine import OpenAIEngine as OpenAIEngine
    from msjax.llm.revise import revise as revise
    from msjax.llm.run import run as run
    from msjax.posterior.posterior import Posterior as Posterior
    from msjax.posterior.posterior import fit as fit
    from msjax.rules.protocol import Decision as Decision
    from msjax.rules.protocol import Observation as Observation
    from msjax.rules.protocol import StoppingRule as StoppingRule
    from msjax.simulation.paths import simulate as simulate
    from msjax.tasks.benchmark import Task as Task
    from msjax.tasks.registry import find_task as find_task
    from msjax.tasks.samples import samples as samples
    from msjax.theory.chain import TwoStateChain as TwoStateChain

_HOME = {
    "Completion": "msjax.data.messages",
    "Decision": "msjax.rules.protocol",
    "Engine": "msjax.llm.engine",
    "FlaxEngine": "msjax.llm.flax.engine",
    "InputError": "msjax.errors",
    "Observation": "msjax.rules.protocol",
    "OpenAIEngine": "msjax.llm.openai_engine",
    "Posterior": "msjax.posterior.posterior",
    "Runs": "msjax.data.runs",
    "StoppingRule": "msjax.rules.protocol",
    "Task": "msjax.tasks.benchmark",
    "Trajectory": "msjax.data.trajectory",
    "TwoStateChain": "msjax.theory.chain",
    "Usage": "msjax.data.usage",
    "decide": "msjax.decision.card",
    "fit": "msjax.posterior.posterior",
    "find_task": "msjax.tasks.registry",
    "read": "msjax.data.importers.reading",
    "revise": "msjax.llm.revise",
    "run": "msjax.llm.run",
    "samples": "msjax.tasks.samples",
    "simulate": "msjax.simulation.paths",
}
_MODULES = {
    "datasets": "msjax.data.datasets",
    "rules": "msjax.rules",
    "scorers": "msjax.tasks.scorers",
    "testing": "msjax.testing",
    "theory": "msjax.theory",
}

__all__ = sorted((*_HOME, *_MODULES, "__version__"))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("msjax")
    elif name in _HOME:
        found = getattr(import_module(_HOME[name]), name)
    elif name in _MODULES:
        found = import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'msjax' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
