"""The report: one self-contained HTML page from the saved results of a reproduction."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from msjax._io import reading, write_text
from msjax.data.store import read_runs
from msjax.errors import InputError
from msjax.report import page
from msjax.report.figures import accuracy_per_round, accuracy_tokens


class Results:
    """The files a reproduction leaves in its folder.

    Raises:
        InputError: a file is absent or is not what `msjax` writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provenance = self._json("provenance.json")
        self.verify = self._json("verify.json")
        if not self.verify:
            raise InputError(f"{folder / 'verify.json'}: no claims; run `msjax reproduce` again")
        self.fit = self._json("fit.json")
        self.rule = self._json("rule.json")
        self.pilot = read_runs(folder / "pilot.jsonl")
        self.stopped = read_runs(folder / "fresh.jsonl")
        self.full = read_runs(folder / f"fresh.fixed-{self.provenance['rounds']}.jsonl")

    def _json(self, name: str) -> Any:
        path = self.folder / name
        with reading(path, "run `msjax reproduce` first"):
            return json.loads(path.read_text(encoding="utf-8"))


def write(folder: Path) -> Path:
    """Draw the figures into `folder`/figures and write `folder`/report.html; returns its path.

    Raises:
        InputError: see `Results`.
    """
    results = Results(folder)
    try:
        body = _body(results)
    except (InputError, OSError):
        raise
    except Exception as error:  # whatever a result of another kind leads to
        raise InputError(
            f"{folder}: a result lacks what this version of msjax writes ({error!r}); run "
            "`msjax reproduce` again"
        ) from error
    path = folder / "report.html"
    write_text(path, page.frame("msjax report", body))
    return path


def _body(results: Results) -> list[str]:
    figures = results.folder / "figures"
    rounds_figure = accuracy_per_round.draw(
        results.pilot, results.fit, figures / "accuracy_per_round"
    )
    tokens_figure = accuracy_tokens.draw(results.stopped, results.full, figures / "accuracy_tokens")
    return [
        "<h1>Does revising help, and when to stop?</h1>",
        _provenance(results.provenance),
        "<h2>1. What the pilot says</h2>",
        _verdicts(results.fit),
        _warnings(results.fit),
        page.image(
            rounds_figure.read_bytes(),
            "Accuracy per round: observed, posterior band of p_k and its limit",
        ),
        _parameters(results.fit),
        "<h2>2. Assumption checks</h2>",
        "<p>Is it one homogeneous chain?</p>",
        _checks(results.fit),
        "<p>Does the model that was chosen produce runs like these?</p>",
        _predictive(results.fit),
        "<h2>3. The rule on fresh questions</h2>",
        _plans(results.rule, results.fit),
        page.image(
            tokens_figure.read_bytes(), "Accuracy against uncached tokens: fixed k and the rule"
        ),
        _comparison(results.rule["comparison"]),
        "<h2>4. The closed forms against simulation</h2>",
        _claims(results.verify),
    ]


def _interval(found: dict[str, float] | None, digits: int = 3, centre: str = "median") -> str:
    if found is None or found[centre] is None:
        return "not identified"
    return f"{found[centre]:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _number(value: float | None, form: str) -> str:
    """A number, or what JSON's null stands for."""
    return "not finite" if value is None else f"{value:{form}}"


def _tokens(value: float | None) -> str:
    return "not reported" if value is None else f"{value:.1f}"


def _provenance(found: dict[str, Any]) -> str:
    source = (
        "the recorded runs that ship with msjax; the model was not run here"
        if found["recorded"]
        else "runs of the model made for this report"
    )
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"<p>Model <b>{escape(found['model'])}</b>. Source of the answers: <b>{source}</b>. "
        f"{found['questions']} pilot and {found['fresh_questions']} fresh questions per benchmark, "
        f"{found['rounds']} refinement rounds, seed {found['seed']}.</p>"
        f"<p class='note'>All intervals are 90 %. {escape(versions)}.</p>"
    )


def _verdicts(fit: dict[str, Any]) -> str:
    items = []
    for name, found in fit["benchmarks"].items():
        helps = found["quantities"]["probability_refining_helps"]
        if helps is None:
            verdict = "whether revising helps is not identified by this pilot"
        elif helps > 0.95:
            verdict = f"the first revision helps (probability {helps:.3f})"
        elif helps < 0.05:
            verdict = f"the first revision hurts (probability that it helps {helps:.3f})"
        else:
            verdict = (
                f"this pilot cannot tell (probability that the first revision helps {helps:.3f})"
            )
        limit = _interval(found["quantities"]["pi"])
        items.append(f"<li><b>{escape(name)}</b>: {verdict}; limit accuracy {limit}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _warnings(fit: dict[str, Any]) -> str:
    return "\n".join(
        f"<div class='warning'><b>{escape(name)}</b>: {escape(warning)}</div>"
        for name, found in fit["benchmarks"].items()
        for warning in found["warnings"]
    )


def _parameters(fit: dict[str, Any]) -> str:
    rows = []
    for name, found in fit["benchmarks"].items():
        limit = found["bounds"]["limit"]
        rates = (found["quantities"][p] for p in ("p0", "p_ic", "p_ci"))
        rows.append(
            [
                name,
                found["model"],
                str(found["questions"]),
                *(_interval(rate) for rate in rates),
                *(_interval(limit[bound]) for bound in ("lower", "neutral", "upper")),
                _interval(found["quantities"]["optimal_rounds"], 0),
            ]
        )
    header = [
        "benchmark",
        "model",
        "questions",
        "p0",
        "p_ic",
        "p_ci",
        "lower bound",
        "limit",
        "upper bound",
        "N*",
    ]
    note = (
        "<p class='note'>p_ic and p_ci are what the first revision repairs of wrong answers and "
        "breaks of right ones. All numbers are averaged over models; the one named has most "
        "weight.</p>"
    )
    return page.table(header, rows, text=(1,)) + note


def _checks(fit: dict[str, Any]) -> str:
    rows = [
        [name, check["name"], check["sentence"]]
        for name, found in fit["benchmarks"].items()
        for check in found["checks"]
    ]
    return page.table(["benchmark", "check", "finding"], rows, text=(1, 2))


def _predictive(fit: dict[str, Any]) -> str:
    rows = [
        [name, found["model"], check["sentence"]]
        for name, found in fit["benchmarks"].items()
        for check in found["ppc"]
    ]
    return page.table(["benchmark", "model", "posterior predictive check"], rows, text=(1, 2))


def _plans(rule: dict[str, Any], fit: dict[str, Any]) -> str:
    rows = []
    for name, plan in rule["plans"].items():
        stop = plan["optimal_rounds"]
        decision = "gate closed: keep the first answer" if stop == 0 else f"revise {stop} times"
        values = ", ".join(f"{value:.3f}" for value in plan["net_value"])
        rows.append([name, decision, values])
    price = fit["price"]
    return (
        f"<p>A correct answer is worth {fit['worth']:g}, an uncached token (prompt not read "
        f"from the cache + completion) costs {price:g}. The rule maximises the expected net value "
        "over the posterior.</p>"
        + page.table(["benchmark", "decision", "net value at k = 0, 1, ..."], rows, text=(1,))
    )


def _comparison(comparisons: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            c["benchmark"],
            f"fixed {c['k']}",
            f"{c['accuracy']:.3f}",
            f"{c['fixed_accuracy']:.3f}",
            _interval(c["accuracy_gain"], 3, "estimate"),
            _tokens(c["tokens"]),
            _tokens(c["fixed_tokens"]),
            _interval(c["tokens_saved"], 1, "estimate"),
        ]
        for c in comparisons
    ]
    header = [
        "benchmark",
        "against",
        "rule accuracy",
        "fixed accuracy",
        "gain (paired)",
        "rule tokens",
        "fixed tokens",
        "saved per question (paired)",
    ]
    return page.table(header, rows)


def _claims(claims: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            claim["id"],
            claim["statement"],
            _number(claim["closed_form"], ".6f"),
            _number(claim["estimate"], ".6f"),
            _number(claim["z"], "+.2f"),
            ("holds" if claim["holds"] else "refuted") if claim["ok"] else "FAILS",
        ]
        for claim in claims
    ]
    header = [
        "claim",
        "statement",
        "closed form",
        "Monte Carlo",
        "standard errors apart",
        "verdict",
    ]
    return page.table(header, rows, text=(1,))
