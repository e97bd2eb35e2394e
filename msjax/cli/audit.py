"""`msjax audit`: what a vote-based stopping rule really does, exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import tyro

from msjax.cli.output import OutputFile, begin

if TYPE_CHECKING:
    from msjax.rules.audit import Audit as Finding
    from msjax.rules.protocol import StoppingRule

__all__ = ["Audit"]

_OPTIONS = (
    "threshold", "margin", "window", "times", "alpha", "min_samples", "classes",
    "assumed_right", "assumed_wrong",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Audit:
    """Audit a stopping rule: its exact error and cost on votes, and whether its claim holds.

    Votes are independent; the rule that runs live is followed through all states it can reach.
    Example: msjax audit asc --p-right .6 --json asc.json
    """

    rule: tyro.conf.Positional[str]
    """Name of a rule, all, or module:function; an unknown name lists the known ones."""
    p_right: float = 0.6
    """Probability that a vote falls on the right answer."""
    p_wrong: tuple[float, ...] = ()
    """Probability of each wrong answer; what is missing to 1 is no answer. Default: one wrong
    answer takes all the rest."""
    budget: int = 64
    """The most votes."""
    threshold: float | None = None
    """Confidence wanted (asc, optpo,evidence=posterior) or Bayes factor (optpo)."""
    margin: int | None = None
    """Lead wanted, in votes (vote_margin)."""
    window: int | None = None
    """Answers per window (esc)."""
    times: int | None = None
    """Equal answers in a row (until_repeated)."""
    alpha: float | None = None
    """Claimed error (certificate)."""
    min_samples: int | None = None
    """Answers wanted in any case (vote_margin, optpo)."""
    classes: int | None = None
    """Answers that could be right (optpo,evidence=posterior); by default as many as have votes."""
    assumed_right: float | None = None
    """p_right as the rule assumes it (optpo); by default the true one."""
    assumed_wrong: float | None = None
    """Probability of one wrong answer as the rule assumes it; by default the true mean."""
    json: OutputFile | None = None
    """Also write the findings to this file: an object, or a list of them for all."""

    def run(self) -> int:
        """Audit, print, write; 0 when done."""
        import numpy as np
        from tqdm import tqdm

        from msjax.cli.output import write_json
        from msjax.errors import InputError, require_probability

        require_probability("--p-right", self.p_right)
        require_probability("--p-wrong", np.array(self.p_wrong or 0))
        if (total := sum(self._rates)) > 1 + 1e-9:
            raise InputError(f"--p-right and --p-wrong sum to {total:g}; at most 1 is possible")
        rules = rules_to_audit(self._rates)
        if ":" in self.rule:
            rules[self.rule] = _Rule(_own(self.rule), {})
        if self.rule != "all" and self.rule not in rules:
            raise InputError(f"RULE is {self.rule!r}; choose from all, {', '.join(rules)}")
        names = list(rules) if self.rule == "all" else [self.rule]
        found = []
        for name in tqdm(names, unit="rule", disable=None, leave=False):
            begin(f"auditing {name}")
            found.append(self._audited(name, rules[name]))
        rates = ", ".join(f"{rate:g}" for rate in self._rates)
        print(f"independent votes with probabilities {rates} (right first), budget {self.budget}")
        if self.rule == "all":
            _print_all(found)
        else:
            _print_one(found[0])
        if self.json is not None:
            write_json(self.json, found if self.rule == "all" else found[0])
        return 0

    @property
    def _rates(self) -> tuple[float, ...]:
        return (self.p_right, *(self.p_wrong or (1 - self.p_right,)))

    def _audited(self, name: str, rule: _Rule) -> dict[str, Any]:
        """The findings, and the parameters they hold for."""
        from functools import partial

        from msjax.errors import InputError
        from msjax.rules.audit import audit

        given = {name: getattr(self, name) for name in _OPTIONS}
        given = {name: value for name, value in given.items() if value is not None}
        for option in given:
            if option not in rule.options and self.rule != "all":
                takes = ", ".join(_flag(known) for known in rule.options) or "no such option"
                raise InputError(f"{_flag(option)} is given, but {name} has none; it takes {takes}")
        # With `all` an option goes to every rule that has it under the same meaning.
        chosen = {k: given.get(k, default) for k, default in rule.options.items()}
        if self.rule == "all" and "threshold" in given:
            raise InputError("--threshold means different things to different rules; name one")
        renamed = {rule.parameter.get(k, k): value for k, value in chosen.items()}
        null = None if rule.null is None else partial(rule.null, **renamed)
        found: Finding = audit(
            partial(rule.make, **renamed),
            self.budget,
            self._rates,
            claimed_error=None if rule.claim is None else rule.claim(chosen),
            null_rule_of=null,
        )
        return {"rule": name, **dataclasses.asdict(found), "parameters": chosen}


class _Rule(NamedTuple):
    """A rule by name: its factory, its options with their defaults, and what it claims.

    Attributes:
        make: the factory; budget first.
        options: options with their defaults.
        parameter: the factory's own name for an option, where it differs.
        claim: the error it claims.
        null: what to hold against the null in its place.
    """

    make: Callable[..., StoppingRule]
    options: dict[str, Any]
    parameter: dict[str, str] = {}
    claim: Callable[[dict[str, Any]], float] | None = None
    null: Callable[..., StoppingRule] | None = None


def rules_to_audit(rates: tuple[float, ...]) -> dict[str, _Rule]:
    """Every rule that decides by votes alone."""
    from functools import partial

    from msjax.rules import fixed, optpo, votes

    wrong = sum(rates[1:]) / (len(rates) - 1)
    assumed = {"assumed_right": rates[0], "assumed_wrong": wrong, "min_samples": 1}
    names = {"assumed_right": "p_right", "assumed_wrong": "p_wrong"}
    alpha: dict[str, Any] = {"options": {"alpha": 0.05}, "parameter": {"alpha": "delta"}}
    plug_in = {"predictive": False}
    return {
        "fixed+majority": _Rule(fixed.self_consistency, {}),
        "until_repeated": _Rule(fixed.until_repeated, {"times": 2}),
        "vote_margin": _Rule(votes.vote_margin, {"margin": 3, "min_samples": 1}),
        "asc": _Rule(votes.asc, {"threshold": 0.95}, claim=lambda p: 1 - p["threshold"]),
        "esc": _Rule(votes.esc, {"window": 5}),
        "consol": _Rule(votes.consol, {}, claim=lambda p: 0.05),
        "optpo": _Rule(
            optpo.optpo,
            {"threshold": 20.0, **assumed},
            names,
            claim=lambda p: 1 / (1 + p["threshold"]),
        ),
        "optpo,evidence=posterior": _Rule(
            optpo.optpo_posterior,
            {"threshold": 0.95, "classes": len(rates), **assumed},
            {**names, "threshold": "confidence"},
            claim=lambda p: 1 - p["threshold"],
        ),
        "certificate": _Rule(
            votes.certificate,
            **alpha,
            claim=lambda p: p["alpha"],
            null=votes.first_answer_certificate,
        ),
        "certificate,predictive=no": _Rule(
            partial(votes.certificate, **plug_in),
            **alpha,
            claim=lambda p: p["alpha"],
            null=partial(votes.first_answer_certificate, **plug_in),
        ),
    }


def _own(text: str) -> Callable[[int], StoppingRule]:
    """The rule that a function of the user makes, by budget."""
    from msjax.errors import InputError
    from msjax.rules.registry import find_rule_for

    def rule(budget: int) -> StoppingRule:
        spec = find_rule_for(text, budget, "samples", "this audit")
        if spec.settings != ("",):
            raise InputError(f"RULE is {text!r}, which has settings; return one StoppingRule")
        return spec.make(None, None)

    return rule


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _print_one(found: dict[str, Any]) -> None:
    parameters = ", ".join(f"{k} {v:g}" for k, v in found["parameters"].items())
    print(f"{found['rule']}: {parameters or 'no parameters'}")
    print(f"  wrong answer            {found['error']:.4f}")
    print(f"  budget spent undecided  {found['undecided']:.4f}")
    print(
        f"  votes                   {found['expected_votes']:.2f} on average, "
        f"{found['p95_votes']} at the 95th percentile, {found['unanimous_votes']} if all agree"
    )
    margin = found["equivalent_margin"]
    same = "no vote margin" if margin is None else f"the same as stopping at a lead of {margin}"
    print(f"  in effect               {same}")
    null = ", ".join(f"{chance:.4f} by {votes}" for votes, chance in found["null"].items())
    print(f"  declares at a coin toss {null} votes")
    print(f"  claim                   {_verdict(found)}")


def _verdict(found: dict[str, Any]) -> str:
    claimed = found["claimed_error"]
    if claimed is None:
        return "none"
    votes, declares = list(found["null"].items())[-1]
    return (
        f"error {claimed:.3g}: {'kept' if found['anytime_valid'] else 'NOT kept'} at a coin toss "
        f"(declares with {declares:.3g} by {votes} votes)"
    )


def _print_all(found: list[dict[str, Any]]) -> None:
    from msjax.cli.tables import table

    horizons = list(found[0]["null"])
    header = (
        "rule", "wrong", "undecided", "votes", "95 %", "unanimous", "margin",
        *(f"null {t}" for t in horizons), "claim",
    )  # fmt: skip
    rows = [
        (
            f["rule"],
            f"{f['error']:.4f}",
            f"{f['undecided']:.4f}",
            f"{f['expected_votes']:.2f}",
            f"{f['p95_votes']}",
            f"{f['unanimous_votes']}",
            "none" if f["equivalent_margin"] is None else f"{f['equivalent_margin']}",
            *(f"{f['null'][t]:.4f}" for t in horizons),
            _verdict(f),
        )
        for f in found
    ]
    print(table(header, rows))
    print("null t: probability of declaring within t votes between two equally likely answers")
