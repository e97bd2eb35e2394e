"""The report: one self-contained HTML page from the saved results of a reproduction."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msjax._io import reading, write_text
from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.decision.card import Card, decide
from msjax.errors import InputError
from msjax.report import card, page
from msjax.report.figures import accuracy_per_round, accuracy_tokens, claims_report
from msjax.report.formulas import as_html
from msjax.report.page import State

__all__ = ["Results", "write"]


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
        text = page.render("report.html.j2", title="msjax report", **_values(results))
    except (InputError, OSError):
        raise
    except Exception as error:  # whatever a result of another kind leads to
        raise InputError(
            f"{folder}: a result lacks what this version of msjax writes ({error!r}); run "
            "`msjax reproduce` again"
        ) from error
    path = folder / "report.html"
    write_text(path, text)
    return path


def _values(results: Results) -> dict[str, Any]:
    """What the names of the template stand for."""
    fit, made = results.fit, results.provenance
    benchmarks = fit["benchmarks"]
    decided = decide(
        Runs.from_records(results.pilot),
        worth=fit["worth"],
        price=fit["price"],
        files=[str(results.folder / "pilot.jsonl")],
    )
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return {
        "made": made,
        "versions": versions,
        "card": card.parts(decided),
        "misfits": [name for name, found in benchmarks.items() if _misfits(found)],
        "parameters": _parameters(fit),
        "warnings": [(name, x) for name, found in benchmarks.items() for x in found["warnings"]],
        "checks": _checks(fit),
        "predictive": _predictive(fit),
        "surprising": sum(x["surprising"] for found in benchmarks.values() for x in found["ppc"]),
        "worth": f"{fit['worth']:g}",
        "price": f"{fit['price']:g}",
        "plans": _plans(decided, results.rule["plans"]),
        "comparison": _comparison(results.rule["comparison"]),
        "claims": claims_report.tables(claims_report.from_json(results.verify)),
        # last, since they are drawn into files
        "rounds_figure": _rounds_figure(results),
        "tokens_figure": _tokens_figure(results),
    }


def _rounds_figure(results: Results) -> page.Picture:
    png = accuracy_per_round.draw(
        results.pilot, results.fit, results.folder / "figures" / "accuracy_per_round"
    )
    says = "; ".join(
        f"{name}: observed accuracy {' then '.join(f'{x:.2f}' for x in found)}"
        for name, one in results.fit["benchmarks"].items()
        if (found := one["observed"]["accuracy"])
    )
    return page.image(
        png.read_bytes(),
        f"Accuracy per round. {says}.",
        "Accuracy per round: dots were observed, the line and its band are the model's posterior "
        "of p_k, the dashed line is its limit. Bars and bands are 90 % intervals.",
    )


def _tokens_figure(results: Results) -> page.Picture:
    png = accuracy_tokens.draw(
        results.stopped, results.full, results.folder / "figures" / "accuracy_tokens"
    )
    says = "; ".join(
        f"{one['accuracy']:.2f} by the rule and {one['fixed_accuracy']:.2f} by fixed {one['k']}"
        for one in results.rule["comparison"]
        if one["benchmark"] == "all"
    )
    return page.image(
        png.read_bytes(),
        f"Accuracy against uncached tokens of the rule and of fixed numbers of rounds. {says}",
        "Accuracy against uncached tokens per question: fixed numbers of rounds, and the rule. "
        "Bars are 90 % intervals.",
    )


def _interval(found: dict[str, float] | None, digits: int = 3, centre: str = "median") -> str:
    if found is None or found[centre] is None:
        return "not identified"
    return f"{found[centre]:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _tokens(value: float | None) -> str:
    return "not reported" if value is None else f"{value:.1f}"


def _misfits(found: dict[str, Any]) -> bool:
    """Whether the runs of a benchmark speak against the model that was fitted to them."""
    return any(x["contradicted"] for x in found["checks"]) or any(
        x["surprising"] for x in found["ppc"]
    )


def _parameters(fit: dict[str, Any]) -> dict[str, Any]:
    header = ["benchmark", "model", "questions", "P(first revision helps)"]
    header += [as_html(name) for name in ("p0", "p_ic", "p_ci")]
    header += ["lower bound", "limit", "upper bound", "N*"]
    rows = []
    for name, found in fit["benchmarks"].items():
        limit, quantities = found["bounds"]["limit"], found["quantities"]
        helps = quantities["probability_refining_helps"]
        rows.append(
            [
                name,
                found["model"],
                str(found["questions"]),
                "not identified" if helps is None else f"{helps:.3f}",
                *(_interval(quantities[rate]) for rate in ("p0", "p_ic", "p_ci")),
                *(_interval(limit[bound]) for bound in ("lower", "neutral", "upper")),
                _interval(quantities["optimal_rounds"], 0),
            ]
        )
    return {"header": header, "rows": rows}


def _checks(fit: dict[str, Any]) -> list[list[Any]]:
    states = {
        True: State("bad", "contradicted"),
        False: State("good", "not contradicted"),
        None: State("soft", "not checked"),
    }
    return [
        [name, check["name"], states[check["contradicted"]], check["sentence"]]
        for name, found in fit["benchmarks"].items()
        for check in found["checks"]
    ]


def _predictive(fit: dict[str, Any]) -> list[list[Any]]:
    states = {True: State("bad", "not as predicted"), False: State("good", "as predicted")}
    return [
        [name, found["model"], states[check["surprising"]], check["sentence"]]
        for name, found in fit["benchmarks"].items()
        for check in found["ppc"]
    ]


def _plans(decided: Card, plans: dict[str, Any]) -> list[list[str]]:
    """What the card says of every benchmark, and what the model's rule does there."""
    says = {
        one.pilot.benchmark: f"{one.use.name} ({one.verdict} than {one.reference.name})"
        if one.verdict in ("better", "worse", "no worse") and one.use != one.reference
        else one.use.name
        for one in decided.decisions
    }
    rows = []
    for name, plan in plans.items():
        stop = plan["optimal_rounds"]
        planned = "keep the first answer" if stop == 0 else f"revise {stop} times"
        values = ", ".join(f"{value:.3f}" for value in plan["net_value"])
        rows.append([name, says[name], planned, values])
    return rows


def _comparison(comparisons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    header = ["benchmark", "against", "rule accuracy", "fixed accuracy", "gain (paired)"]
    header += ["rule tokens", "fixed tokens", "saved per question (paired)"]
    rows = [
        [
            one["benchmark"],
            f"fixed {one['k']}",
            f"{one['accuracy']:.3f}",
            f"{one['fixed_accuracy']:.3f}",
            _interval(one["accuracy_gain"], 3, "estimate"),
            _tokens(one["tokens"]),
            _tokens(one["fixed_tokens"]),
            _interval(one["tokens_saved"], 1, "estimate"),
        ]
        for one in comparisons
    ]
    return {"header": header, "rows": rows}
