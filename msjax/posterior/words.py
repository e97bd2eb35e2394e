"""A posterior in JSON's types, and as text for a terminal or a notebook."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from msjax.data.runs import Runs
from msjax.intervals import Interval
from msjax.posterior.average import MATERIAL
from msjax.posterior.quantities import Bounds, estimate

if TYPE_CHECKING:
    from msjax.posterior.compare import Candidate
    from msjax.posterior.judge import JudgePosterior
    from msjax.posterior.posterior import Posterior

_WIDTH = 96
_MEANING = {
    "p0": ("first answer right", "accuracy before any revision"),
    "p_ic": ("fix, p_ic", "of the wrong first answers, the first revision repairs this share"),
    "p_ci": ("damage, p_ci", "of the right first answers, the first revision breaks this share"),
}


def summarise(post: "Posterior") -> str:
    """Warnings, numbers with 90 % intervals, models, as text."""
    runs = post.runs
    lines = [
        f"{runs.name} ({runs.model}): {_asked(runs)}, "
        f"{runs.first_right} right at once, up to {_number(runs.rounds, 'round')}"
    ]
    for warning in post.warnings:
        lines += textwrap.wrap(warning, _WIDTH, initial_indent="!! ", subsequent_indent="   ")
    rows = [(title, str(getattr(post, name)), note) for name, (title, note) in _MEANING.items()]
    for k, interval in enumerate(post.accuracy.interval()):
        if k:
            rows.append((f"accuracy after {k}", str(interval), ""))
    if any(interval.identified for interval in post.later):
        last = len(post.accuracy) - 1 + len(post.later)
        rows.append((f"accuracy after {last}", _ends(post.later[-1]), "range over the models"))
    rows += [
        ("limit", str(post.limit), "accuracy after many rounds, if rates stay as they are"),
        ("best case, upper", str(post.upper), "limit if only questions that gain are revised"),
        ("worst case, lower", str(post.lower), "limit if only questions that lose are revised"),
    ]
    if post.judge:
        rows += [
            ("false accept, f", str(post.judge.false_accept), "wrong answers the judge accepts"),
            ("false reject, 1 - s", str(post.judge.false_reject), "right answers it rejects"),
            (
                "discrimination, s - f",
                str(post.judge.discrimination),
                "0: its verdicts tell nothing",
            ),
        ]
        for which in ("right", "wrong"):
            draws = getattr(post.judge, f"votes_{which}")
            if not np.isnan(draws).any():
                title = f"votes agree, {which}"
                rows.append((title, str(estimate(draws)), "on one answer; 0: as chance has it"))
    left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines += [f"  {a:{left}}  {b:{middle}}  {c}".rstrip() for a, b, c in rows]
    lines.append(
        "  median [90 % interval]; of a bound, what the runs allow [90 % interval of both]"
    )
    lines.append(
        f"  P(the first revision helps) {_probability(post.first_round_helps)}, "
        f"P(many rounds help) {_probability(post.limit_helps)}"
    )
    lines += _models(post)
    return "\n".join(lines)


def _asked(runs: "Runs") -> str:
    number = _number(len(set(runs.question_ids)), "question")
    return f"{_number(runs.questions, 'run')} of {number}" if runs.repeated else number


def details(post: "Posterior") -> str:
    """What was assumed and checked, as text: parameters of the leading model, checks."""
    found = as_dict(post)
    lines = [f"  Model with most weight, {found['model']}: {found['says']}."]
    lines.append(f"  Prior: {found['priors']}.")
    expected, rounds = found["prior_predictive"]["accuracy"], found["rounds"]
    first, last = (f"[{x['low']:.3f}, {x['high']:.3f}]" for x in (expected[0], expected[rounds]))
    lines.append(f"  Prior predictive, 90 %: first accuracy {first}, after {rounds} rounds {last}.")
    diagnostics = found["diagnostics"]
    for name, parameter in found["parameters"].items():
        if parameter["identified"]:
            x = parameter["posterior"]
            text = f"{x['median']:.3f} [{x['low']:.3f}, {x['high']:.3f}]"
        else:
            prior, posterior = (
                f"[{x['low']:.3f}, {x['high']:.3f}]"
                for x in (parameter["prior"], parameter["posterior"])
            )
            text = f"not identified: prior {prior}, posterior {posterior}"
        if diagnostics["r_hat"]:
            text += (
                f"  R-hat {diagnostics['r_hat'][name]:.3f}, ESS "
                f"{min(diagnostics['bulk_ess'][name], diagnostics['tail_ess'][name]):.0f}"
            )
        lines.append(f"    {name:16}{text}")
    if found["checks"]:
        lines.append("  Is it one homogeneous chain? (counts: changes of state / visits)")
    lines += [f"    {check['name']}: {check['sentence']}" for check in found["checks"]]
    if found["ppc"]:
        lines.append("  Do replicated runs look like the real ones? (posterior predictive)")
    lines += [f"    {check['sentence']}" for check in found["ppc"]]
    return "\n".join(lines)


def as_dict(post: "Posterior") -> dict[str, Any]:
    """Everything that is said of one benchmark, in JSON's types."""
    runs, leading, drawn = post.runs, post.leading, post.draws
    (ii, ic), (ci, cc) = runs.transitions.sum(axis=0).tolist()
    flat = leading.sample.flat
    horizon = drawn.bounds.neutral.shape[1]
    diagnostics = leading.diagnostics

    def after(k: int) -> dict[str, Any]:
        if k <= runs.rounds:
            return {name: number(x[:, k]) for name, x in drawn.bounds._asdict().items()}
        return {name: _as_number(post.over_models(name, k)) for name in Bounds._fields}

    curve = [after(k) for k in range(horizon)]
    return {
        "language_model": runs.model,
        "model": leading.model.name,
        "says": leading.model.says,
        "priors": leading.model.priors,
        "questions": runs.questions,
        "rounds": runs.rounds,
        "censored": runs.n_censored,
        "first_right": runs.first_right,
        "transitions": {"II": ii, "IC": ic, "CI": ci, "CC": cc},
        "tokens_per_round": runs.tokens_per_round,
        "observed": {
            "accuracy": observed_accuracy(runs),
            "questions": (runs.correct >= 0).sum(axis=0),
        },
        "warnings": post.warnings,
        "models": [_candidate(post, c) for c in post.candidates],
        "diagnostics": {
            "draws": len(next(iter(flat.values()))),
            "independent": diagnostics is None,
            "r_hat": diagnostics.r_hat if diagnostics else {},
            "bulk_ess": diagnostics.bulk_ess if diagnostics else {},
            "tail_ess": diagnostics.tail_ess if diagnostics else {},
            "divergences": diagnostics.divergences if diagnostics else 0,
        },
        "parameters": {
            name: {
                "identified": leading.identified[name],
                "posterior": number(flat[name]),
                "prior": number(post.prior[name]),
            }
            for name in leading.model.parameters
        },
        "prior_predictive": {"accuracy": [number(x) for x in post.prior_accuracy.T]},
        "bounds": {
            "rounds": runs.rounds,
            "after": curve,
            "limit": {name: number(x) for name, x in drawn.limit._asdict().items()},
        },
        "quantities": {
            "p0": number(drawn.p0),
            "p_ic": number(drawn.p_ic),
            "p_ci": number(drawn.p_ci),
            "pi": number(drawn.limit.neutral),
            "accuracy": [bounds["neutral"] for bounds in curve],
            "weight_with_a_limit": post.limit.share,
            "probability_refining_helps": post.first_round_helps,
            "probability_limit_helps": post.limit_helps,
        },
        "judge": _judge(post.judge),
        "checks": [vars(check) for check in post.checks],
        "ppc": [vars(check) for check in post.predictive],
    }


def _judge(judge: "JudgePosterior | None") -> dict[str, Any] | None:
    if judge is None:
        return None
    return {
        "accept_right": number(judge.accept_right),
        "accept_wrong": number(judge.accept_wrong),
        "discrimination": number(judge.accept_right - judge.accept_wrong),
        "tells": judge.tells,
        "judged": {"right": judge.judged_right, "wrong": judge.judged_wrong},
        "accepted": {"right": judge.accepted_right, "wrong": judge.accepted_wrong},
        "unjudged": judge.unjudged,
        "votes_agree": {"right": number(judge.votes_right), "wrong": number(judge.votes_wrong)},
    }


def observed_accuracy(runs: Runs) -> Float[np.ndarray, " answer"]:
    """Share of right answers at every round, among the runs that reached it."""
    return runs.right.sum(axis=0) / np.maximum(runs.real.sum(axis=0), 1)


def number(draws: Float[np.ndarray, " draw"]) -> dict[str, float] | None:
    """Mean, median and 90 % interval of draws of a quantity, None where it is not identified."""
    from msjax.posterior.posterior import Quantity

    found = Quantity(draws)
    if not found.identified:
        return None
    return {"mean": found.mean, **_ends_of(found.interval())}


def price_table(post: "Posterior", worth: float, price: float) -> str:
    """The best number of the recorded rounds at this price, and its net value, as text."""
    best = post.best_rounds(worth, price)
    return (
        f"  rounds that pay best: {best:.0f}, when a right answer is worth {worth:g} and a token "
        f"costs {price:g}"
    )


def break_even_table(post: "Posterior") -> str:
    """Below which price of 1,000 tokens each number of rounds pays, as text."""
    rows = []
    for k in range(1, post.runs.rounds + 1):
        found = post.break_even(k).interval()
        if not found.identified or found.estimate <= 0:
            text = "at no price" if found.identified else str(found)
        else:
            per_thousand = Interval(*(1000 * x for x in (found.estimate, found.low, found.high)))
            text = f"while 1,000 tokens cost less than {per_thousand:.3g} right answers"
        rows.append(f"    {_number(k, 'round')}: {text}")
    return "\n".join(["  Revising pays (--worth and --price: how often)", *rows]) if rows else ""


def _models(post: "Posterior") -> list[str]:
    fitted = [c for c in post.candidates if c.fit]
    if len(fitted) == 1:
        only = "the only candidate that these runs allow" if len(post.candidates) > 1 else "named"
        if post.runs.repeated:
            only = "for questions that were run several times"
        return [f"  Model: {fitted[0].model.name} ({only})"]
    parts = [
        f"{c.model.name} {c.weight:.2f}"
        + (" (contradicted)" if c.model.name in post.contradicted_models else "")
        for c in fitted
        if c.weight >= MATERIAL
    ]
    return textwrap.wrap(
        f"Average over models by their probability given the runs: {', '.join(parts)}",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
    )


def _candidate(post: "Posterior", candidate: "Candidate") -> dict[str, Any]:
    fit, name = candidate.fit, candidate.model.name
    found = post.by_model.get(name) if candidate.weight >= MATERIAL else None
    return {
        "model": name,
        "says": candidate.model.says,
        "refused": candidate.refused,
        "weight": candidate.weight,
        "log_evidence": fit.log_evidence if fit else None,
        "contradicted": name in post.contradicted_models,
        "limit": number(found.limit.neutral) if found else None,
        "p_ic": number(found.p_ic) if found else None,
        "p_ci": number(found.p_ci) if found else None,
    }


def _ends_of(interval: Interval) -> dict[str, float]:
    return {"median": interval.estimate, "low": interval.low, "high": interval.high}


def _as_number(interval: Interval) -> dict[str, float] | None:
    if not interval.identified:
        return None
    return {"mean": interval.estimate, **_ends_of(interval)}


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]" if interval.identified else str(interval)


def _probability(value: float) -> str:
    return "not identified" if np.isnan(value) else f"{value:.3f}"


def _number(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
