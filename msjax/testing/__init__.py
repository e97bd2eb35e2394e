"""For tests of code that uses msjax: runs, a model and a server that say what a script says."""

from msjax.testing.engine import ScriptedEngine
from msjax.testing.runs import make_run
from msjax.testing.server import ScriptedServer

__all__ = ["ScriptedEngine", "ScriptedServer", "make_run"]
