"""Rules by name: when to stop, what to return, and options, in one spelling everywhere.

    STOP[+RETURN][,OPTION=VALUE]...      markovscale      fixed+majority      belief,scores=yes

STOP is a name registered here, or "module:function" for a rule of one's own. RETURN is what is
returned in place of what the rule returns itself. An option that is a setting of the rule picks
those settings (`until_repeated,times=3`). Nothing here chooses a setting: that is done on other
questions than those that are reported (`msjax.evaluate.crossfit`).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from msjax._io import load_named
from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.rules.fixed import Returned, answer_by
from msjax.rules.grid import each_setting
from msjax.rules.protocol import StoppingRule
from msjax.rules.spec import ANSWERS, NEEDS, SCORES, RuleSpec, Training, constant, offered_by

__all__ = ["RETURNS", "find_rule", "find_rule_for", "find_rules", "register_rule", "rule_names"]

ROUNDS, SAMPLES = frozenset({"rounds"}), frozenset({"samples"})
RETURNS = (*get_args(Returned), "most_probable")
"""What may be returned: the last answer, the one given most often, the one with the highest score,
the one most probably right given the order of all."""
_RETURN_NEEDS = {
    "last": ANSWERS,
    "majority": ANSWERS,
    "best_score": SCORES,
    "most_probable": ANSWERS,
}

Build = Callable[..., RuleSpec]
"""A rule for at most so many answers: `build(budget, **options)`."""


@dataclass(frozen=True)
class Registered:
    """A way to stop.

    Attributes:
        build: the rule; the budget first, then options by name.
        asked: "rounds", "samples" or both: what it may ask for.
        returns: what it returns itself; None for the answer at which it stops.
        listed: other returns with which it is listed.
        joint: returns in view of which it stops: `build` is given `returned=`.
        options: values of every option, the default first; those with others are listed on demand.
    """

    build: Build
    asked: frozenset[str]
    returns: str | None
    listed: tuple[str, ...]
    joint: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]


REGISTERED: dict[str, Registered] = {}
"""Every rule by name, those of ours once one was looked for."""


def register_rule(
    name: str,
    *,
    asked: frozenset[str] = ROUNDS | SAMPLES,
    returns: str | None = None,
    listed: tuple[str, ...] = (),
    joint: tuple[str, ...] = (),
    **options: tuple[str, ...],
) -> Callable[[Build], Build]:
    """Register a rule under a name: decorates `build(budget, **options) -> RuleSpec`.

    Args:
        name: what users type.
        asked: of {"rounds", "samples"}, what it may ask for.
        returns: what it returns itself, of `RETURNS`; None for the answer at which it stops.
        listed: other returns with which it is listed where no rule is named.
        joint: returns in view of which it stops: for these, `build` is given `returned=` as well,
            and makes a rule that returns so.
        options: values of every option, the default first.

    Raises:
        InputError: a name that is taken or cannot be typed, or an unknown return.
    """
    if name in REGISTERED or not name.isidentifier():
        raise InputError(f"rule {name!r}: give a new name of letters, digits and underscores")
    for one in (returns or "last", *listed, *joint):
        _require_return(name, one)

    def register(build: Build) -> Build:
        REGISTERED[name] = Registered(build, asked, returns, listed, joint, options)
        return build

    return register


def rule_names() -> tuple[str, ...]:
    """Every registered name of a rule, without returns and options."""
    return tuple(_registered())


def find_rule(text: str, runs: Runs) -> RuleSpec:
    """The rule of this name for runs of this kind and length.

    Args:
        text: `STOP[+RETURN][,OPTION=VALUE]...`, where STOP is a registered name or
            "module:function": a function of the budget (the most answers) that returns a
            `StoppingRule` or a `RuleSpec`.
        runs: one group: rounds or samples, how many, and what is recorded of them.

    Raises:
        InputError: an unknown name, return, option or setting; a rule that is not for rounds, or
            not for samples; or one that needs what the runs do not have.
    """
    spec = find_rule_for(text, runs.samples, "samples" if runs.parallel else "rounds", runs.name)
    missing = spec.needs - offered_by(runs)
    if missing:
        raise InputError(
            f"rules: {text!r} needs {NEEDS[min(missing)]}, which {runs.name} does not have"
        )
    return spec


def find_rule_for(text: str, budget: int, kind: str, name: str) -> RuleSpec:
    """The rule of this name, before there are runs: for at most so many answers.

    Args:
        text: as for `find_rule`.
        budget: the most answers.
        kind: "rounds" or "samples".
        name: what messages call that which has rounds or samples.

    Raises:
        InputError: as `find_rule`.
    """
    head, *given = text.split(",")
    stop, plus, returned = head.partition("+")
    if plus:
        _require_return(text, returned)
    rule = _rule(stop, text)
    if kind not in rule.asked:
        raise InputError(f"rules: {text!r} is for {min(rule.asked)}, and {name} has {kind}")
    chosen, settings = {}, []
    for one in given:
        option, _, value = one.partition("=")
        if option not in rule.options:
            settings.append(one)
        elif value not in rule.options[option]:
            raise InputError(
                f"rules: {text!r}: {option} is {value!r}; choose from "
                f"{', '.join(rule.options[option])}"
            )
        elif value != rule.options[option][0]:
            chosen[option] = value
    other = "" if returned == rule.returns else returned
    if _pointless(other or rule.returns, kind):
        raise InputError(
            f"rules: {text!r} returns by the order of rounds, and {name} has samples, which come "
            f"in none; write {stop}+majority"
        )
    joint = {"returned": other} if other in rule.joint else {}
    spec = _built(rule.build, budget, kind, tuple(sorted({**chosen, **joint}.items())))
    if other and not joint:
        spec = _returning(spec, other, budget)
    ends = f"+{other}" if other else ""
    full = ",".join([stop + ends, *(f"{option}={value}" for option, value in chosen.items())])
    return _with_settings(replace(spec, name=full), text, tuple(settings))


def find_rules(
    runs: Runs, names: tuple[str, ...] = (), *, every: bool = False
) -> tuple[RuleSpec, ...]:
    """The rules named, or all that these runs allow.

    Args:
        runs: one group.
        names: as for `find_rule`.
        every: with no names, also the options of every rule: other estimates and ablations.

    Raises:
        InputError: as `find_rule`, for rules that are named.
    """
    if names:
        return tuple(find_rule(name, runs) for name in names)
    kind = "samples" if runs.parallel else "rounds"
    texts = [
        text
        for name, rule in _registered().items()
        if kind in rule.asked
        for text in _listed(name, rule, kind, every)
    ]
    has = offered_by(runs)
    found = [find_rule_for(text, runs.samples, kind, runs.name) for text in texts]
    return tuple(spec for spec in found if spec.needs <= has)


def _listed(name: str, rule: Registered, kind: str, every: bool) -> list[str]:
    own = () if _pointless(rule.returns, kind) else (name,)
    returns = [f"{name}+{r}" for r in rule.listed if not _pointless(r, kind)]
    options = [
        f"{name},{option}={value}"
        for option, (_, *others) in rule.options.items()
        for value in others
    ]
    return [*own, *returns, *(options if every else [])]


def _registered() -> dict[str, Registered]:
    import msjax.rules.stops  # noqa: F401  (registers what is ours)

    return REGISTERED


def _pointless(returns: str | None, kind: str) -> bool:
    """Whether samples, which come in no order, are asked for the last or by their order."""
    return kind == "samples" and returns in ("last", "most_probable")


def _rule(stop: str, text: str) -> Registered:
    if ":" in stop:
        return _own(stop)
    known = _registered()
    if stop not in known:
        raise InputError(
            f"rules: {text!r} is unknown; known are {', '.join(known)}, or your own as "
            "module:function"
        )
    return known[stop]


@cache
def _built(build: Build, budget: int, kind: str, options: tuple[tuple[str, str], ...]) -> RuleSpec:
    """Built once, so that what is compiled for a rule serves again."""
    wanted = inspect.signature(build).parameters
    more = {"kind": kind} if "kind" in wanted else {}
    return build(budget, **dict(options), **more)


@cache
def _own(text: str) -> Registered:
    """The rule that a function of the user makes."""
    function = load_named(text, "rule")
    if not callable(function):
        raise InputError(f"rules: {text!r} is {type(function).__name__}; give a function")

    def build(budget: int) -> RuleSpec:
        try:
            made = function(budget)
        except TypeError as error:
            raise InputError(
                f"rules: {text!r} failed with {error}; it is called with the most answers that "
                "may be asked for"
            ) from error
        if isinstance(made, RuleSpec):
            return made
        if not isinstance(made, StoppingRule):
            raise InputError(
                f"rules: {text!r} returned {type(made).__name__}; return a StoppingRule (or a "
                "RuleSpec)"
            )
        says = (inspect.getdoc(function) or text).splitlines()[0]
        return RuleSpec(says, lambda *_: made, ("",), constant([0]))

    return Registered(build, ROUNDS | SAMPLES, None, (), (), {})


@cache
def _returning(spec: RuleSpec, returned: str, budget: int) -> RuleSpec:
    """The same stop with another return."""
    from msjax.rules.most_probable import by_probability
    from msjax.rules.stops import answer_model

    says = f"{spec.says}; returns {_RETURNED[returned]}"
    needs = spec.needs | _RETURN_NEEDS[returned]
    if returned != "most_probable":

        def make(parameters: Any, info: Any) -> StoppingRule:
            return answer_by(spec.make(parameters, info), returned, budget)  # type: ignore[arg-type]

        return replace(spec, says=says, make=make, needs=needs)

    def learn(train: Training) -> Any:
        inner = each_setting(spec.parameters(train))
        model = answer_model(train)
        repeat = jax.tree.map(lambda x: jnp.broadcast_to(x, len(spec.settings)), model)
        return inner, repeat

    def make_probable(parameters: Any, info: Any) -> StoppingRule:
        return by_probability(spec.make(parameters[0], info), parameters[1], budget)

    return replace(
        spec, says=says, make=make_probable, parameters=learn, needs=needs, from_curve=False
    )


_RETURNED = {
    "last": "the last answer",
    "majority": "the answer given most often",
    "best_score": "the answer with the highest score",
    "most_probable": "the answer most probably right, given the order of all",
}


def _with_settings(spec: RuleSpec, text: str, wanted: tuple[str, ...]) -> RuleSpec:
    """The rule with those of its settings that have all wanted values."""
    if not wanted:
        return spec
    kept = [i for i, one in enumerate(spec.settings) if set(wanted) <= set(one.split(","))]
    if not kept:
        known = "; ".join(s for s in spec.settings if s) or "none"
        raise InputError(
            f"rules: {text!r} has no setting or option {','.join(wanted)!r}; settings are {known}"
        )
    return _narrowed(spec, tuple(kept), ",".join((spec.name, *wanted)))


@cache
def _narrowed(spec: RuleSpec, kept: tuple[int, ...], name: str) -> RuleSpec:
    index = np.array(kept)

    def learn(train: Training) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x)[index], each_setting(spec.parameters(train)))

    default = kept.index(spec.default) if spec.default in kept else 0
    settings = tuple(spec.settings[i] for i in kept)
    return replace(spec, name=name, settings=settings, parameters=learn, default=default)


def _require_return(text: str, returned: str) -> None:
    if returned not in RETURNS:
        raise InputError(
            f"rules: {text!r}: {returned!r} is no return; choose from {', '.join(RETURNS)}"
        )
