"""Types and shapes of what functions take and return, checked while tests run.

As `jaxtyping.install_import_hook` does it, but dearer things are done less often: functions defined
in functions would be compiled anew by every call, so only those of modules and classes are checked,
in one pass, and compiled to checks by their first call, since a process calls few that it loads.
"""

import ast
import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

_DECORATOR = "__import__('typechecks').checked"
_CHECKED = ".checked"


def checked(thing: Any) -> Any:
    """A function that checks what it takes and returns, or a dataclass its fields."""
    if isinstance(thing, type):
        import beartype
        import jaxtyping

        return jaxtyping.jaxtyped(typechecker=beartype.beartype)(thing)
    compiled: Callable[..., Any] | None = None

    @functools.wraps(thing)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            import beartype
            import jaxtyping

            thing.__annotations__ = {n: _type(a, thing) for n, a in thing.__annotations__.items()}
            compiled = jaxtyping.jaxtyped(typechecker=None)(beartype.beartype(thing))
        return compiled(*args, **kwargs)

    return call


def _type(annotation: Any, function: Callable[..., Any]) -> Any:
    """What an annotation written as a string names; anything if only type checkers import it."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)
    except NameError:
        return Any


class _Loader(SourceFileLoader):
    """Loads a module whose functions and classes are decorated with `checked`."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        tree = ast.parse(data, path)
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for parent in (tree, *classes):
            for node in parent.body:
                if isinstance(node, ast.FunctionDef):
                    # Innermost, as `jax.jit` and its like hide annotations.
                    node.decorator_list.append(_decorator(node))
                elif isinstance(node, ast.ClassDef):
                    node.decorator_list.insert(0, _decorator(node))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    # Bytecode of decorated modules is kept beside that of the modules as they are.

    def get_data(self, path: str) -> bytes:
        return super().get_data(path if path == self.path else path + _CHECKED)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(path + _CHECKED, data, _mode=_mode)  # type: ignore[call-arg]


def _decorator(node: ast.stmt) -> ast.expr:
    made = ast.parse(_DECORATOR, mode="eval").body
    for part in ast.walk(made):
        ast.copy_location(part, node)
    return made


class _Finder:
    def __init__(self, rooms: Sequence[str]) -> None:
        self._rooms = rooms

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(name == room or name.startswith(room + ".") for room in self._rooms):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def check(*rooms: str) -> None:
    """Check the modules of these packages, which must not be imported yet."""
    sys.meta_path.insert(0, _Finder(rooms))
