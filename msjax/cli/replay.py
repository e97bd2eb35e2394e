"""`msjax replay`: stopping rules over recorded answers, judged where they were not tuned."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from msjax._io import write_csv, write_text
from msjax.cli.output import OutputFile, OutputFolder, Seed, begin, prepare_sampling, print_doubts
from msjax.cli.prices import Prices
from msjax.errors import require_extra
from msjax.intervals import NOT_IDENTIFIED
from msjax.texts import file_names, latex_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msjax.data.runs import Runs
    from msjax.evaluate.crossfit import Evaluation, RuleResult
    from msjax.rules.spec import RuleSpec


@dataclass(frozen=True)
class Replay(Prices):
    """Replay stopping rules over recorded answers: accuracy, tokens, saving, and what was tuned.

    Settings of rules are chosen on other questions than those reported (five folds), by accuracy
    and then tokens, or by net value if --worth and a price are given; how much better the same
    choice would have looked on the reported ones is printed as optimism. Parallel pools are
    averaged over random orders.

    Example: msjax replay runs.jsonl --rules fixed markovscale belief --json replay.json
    """

    pools: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax run`, or OptScale's completion files (--prompts)."""
    prompts: tuple[Path, ...] = ()
    """OptScale's prompt files, one for each pool; the pools are then its completion files."""
    rules: tuple[str, ...] = ()
    """Names of rules, such as markovscale, fixed+majority or module:function; the usual ones that
    the runs allow if none is given."""
    all: bool = False
    """Also replay rules with other estimates, and ablations."""
    model: str = "pooled"
    """Model of which markovscale follows the curve, fitted to every fold: pooled is known exactly,
    auto fits all models and takes long."""
    predictor: Path | None = None
    """File of `msjax train priors fit`: rules told predicted priors are replayed as well, all rules
    on the questions that it did not learn from."""
    features: Path | None = None
    """Features of the questions, for --predictor."""
    orders: int = 100
    """Random orders of each parallel pool."""
    choose: bool = True
    """Choose settings on the other folds; otherwise rules keep their published settings."""
    json: OutputFile | None = None
    """Write everything that is printed here as JSON."""
    csv: OutputFile | None = None
    """Write one line per pool and rule here."""
    latex: OutputFile | None = None
    """Write the table here as LaTeX."""
    figures: OutputFolder | None = None
    """Draw accuracy against tokens of every pool in this folder."""
    seed: Seed = 0
    """Seed of orders, folds and resampling."""

    def run(self) -> int:
        """Replay, print, write; 0 when done."""
        worth, price = self.worth_and_price()
        if self.figures:
            require_extra("report", "matplotlib")
        prepare_sampling()
        import jax
        from tqdm import tqdm

        from msjax.cli.output import write_json
        from msjax.evaluate.crossfit import evaluate
        from msjax.posterior.for_rules import PosteriorForRules
        from msjax.rules import find_rules

        pools = self._pools()
        predicted: list[tuple[RuleSpec, ...]] = [()] * len(pools)
        if self.predictor or self.features:
            pools, predicted = self._predicted(pools)
        offered = [
            (*find_rules(pool, self.rules, every=self.all), *more)
            for pool, more in zip(pools, predicted, strict=True)
        ]
        results: list[Evaluation] = []
        key = jax.random.key(self.seed)
        total = sum(map(len, offered))
        with tqdm(total=total, desc="replay", unit="rule", disable=None) as bar:
            for i, (pool, rules) in enumerate(zip(pools, offered, strict=True)):
                begin(f"replaying {pool.name}")

                def show(rule: str, name: str = pool.name) -> None:
                    bar.set_postfix_str(f"{name}: {rule}")
                    bar.update()

                results.append(
                    evaluate(
                        pool,
                        rules,
                        jax.random.fold_in(key, i),
                        orders=self.orders,
                        value=worth,
                        price=price,
                        choose=self.choose,
                        posterior=PosteriorForRules(jax.random.fold_in(key, i), self.model),
                        progress=show,
                    )
                )
        for result in results:
            _print(result)
        print(f"seed {self.seed}")
        if self.json:
            report = {
                "seed": self.seed,
                "worth": worth,
                "price": price,
                "model": self.model,
                "pools": {result.pool.name: as_dict(result) for result in results},
            }
            write_json(self.json, report)
        if self.csv:
            _write_csv(self.csv, results)
        if self.latex:
            write_text(self.latex, latex(results))
        if self.figures:
            from msjax.report.figures.replay import draw

            stems = file_names(result.pool.name for result in results)
            for result in results:
                print(draw(result, self.figures / f"replay_{stems[result.pool.name]}"))
        return 0

    def _predicted(self, pools: "list[Runs]") -> "tuple[list[Runs], list[tuple[RuleSpec, ...]]]":
        """The questions that the predictor did not learn from, and its rules for them."""
        from msjax.errors import InputError
        from msjax.train.priors.features import read_features
        from msjax.train.priors.predictor import load
        from msjax.train.priors.rules import new_questions, predicted_rules

        if self.predictor is None or self.features is None:
            raise InputError(
                f"--predictor is {self.predictor} and --features is {self.features}; give both"
            )
        predictor, table = load(self.predictor), read_features(self.features)
        new = [new_questions(predictor, pool) for pool in pools]
        return new, [predicted_rules(predictor, table, pool) for pool in new]

    def _pools(self) -> "list[Runs]":
        from msjax.data.checks import hidden_by_labels
        from msjax.data.importers.optscale import read_optscale
        from msjax.data.importers.reading import read
        from msjax.errors import InputError

        if not self.prompts:
            runs = read(*self.pools)
            print_doubts(runs)
            pools = [pool for pool in runs.groups if pool.protocol != "longer"]
            for pool in runs.groups:
                if pool.protocol == "longer":
                    print(
                        f"{pool.name}: think longer: {pool.right[:, 0].mean():.3f} right, "
                        f"{pool.uncached[:, 0].mean():,.0f} tokens; `msjax card` compares it"
                    )
            for pool in pools:
                if why := hidden_by_labels(pool.require_complete()):
                    raise InputError(
                        f"{pool.name}: {why}, so a rule that would have gone on cannot be "
                        "replayed; record runs with all their rounds"
                    )
            if not pools:
                raise InputError(
                    "only answers with a larger limit of tokens are there; give rounds or samples "
                    "too"
                )
            return pools
        if len(self.prompts) != len(self.pools):
            raise InputError(
                f"--prompts has {len(self.prompts)} files for {len(self.pools)} pools; "
                "give one for each"
            )
        return [read_optscale(*pair) for pair in zip(self.pools, self.prompts, strict=True)]


def as_dict(result: "Evaluation") -> dict[str, Any]:
    """Everything that is reported of one pool, in JSON's types."""
    pool = result.pool
    return {
        "questions": pool.questions,
        "samples": pool.samples,
        "parallel": pool.parallel,
        "orders": result.orders,
        "unit": pool.unit,
        "baseline": result.baseline,
        "rules": {rule.name: vars(rule) for rule in result.rules},
        "yardsticks": {rule.name: vars(rule) for rule in result.yardsticks},
    }


_HEADER = (
    "rule",
    "accuracy",
    "tokens",
    "answers",
    "saving",
    "gain",
    "net value",
    "optimism",
    "setting",
)


def _cells(rule: "RuleResult") -> list[str]:
    from msjax.cli.tables import interval

    settings = list(dict.fromkeys(rule.settings))
    return [
        rule.name + (" *" if rule.efficient else ""),
        interval(rule.accuracy, 3),
        "not reported" if math.isnan(rule.uncached) else f"{rule.uncached:,.0f}",
        f"{rule.n_used:.2f}",
        interval(rule.saving, 2),
        interval(rule.gain, 3),
        "" if rule.net_value is None else interval(rule.net_value, 3),
        f"{rule.optimism:+.4f}",
        settings[0] if len(settings) == 1 else f"{len(settings)} settings",
    ]


def _print(result: "Evaluation") -> None:
    from msjax.cli.tables import table

    pool = result.pool
    kind = f"parallel, {result.orders} orders" if pool.parallel else "sequential"
    print(f"\n{pool.name}: {pool.questions} questions x {pool.samples} answers, {kind}")
    print(f"saving and gain against: {result.baseline}; intervals 90 %, over questions")
    print(table(_HEADER, [_cells(rule) for rule in (*result.rules, *result.yardsticks)]))
    print("* no other rule is as accurate with fewer tokens; oracle looks at the labels")
    short = [rule.name for rule in result.rules if rule.hit_budget > 0.01]
    if short:
        print(f"wanted more than was recorded in over 1 % of questions: {', '.join(short)}")


def _write_csv(path: Path, results: "Sequence[Evaluation]") -> None:
    intervals = ("accuracy", "gain", "saving", "net_value")
    ends = [f"{name}{end}" for name in intervals for end in ("", "_low", "_high")]
    rows = [["pool", "rule", *ends, "uncached", "n_used", "hit_budget", "optimism"]]
    for result in results:
        for rule in (*result.rules, *result.yardsticks):
            found = [getattr(rule, name) or NOT_IDENTIFIED for name in intervals]
            numbers = [x for i in found for x in (i.estimate, i.low, i.high)]
            numbers += [rule.uncached, rule.n_used, rule.hit_budget, rule.optimism]
            rows.append(
                [
                    result.pool.name,
                    rule.name,
                    *("" if math.isnan(x) else f"{x:.6g}" for x in numbers),
                ]
            )
    write_csv(path, rows)


def latex(results: "Sequence[Evaluation]") -> str:
    """The table as LaTeX, with booktabs."""
    lines = [
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"pool & rule & accuracy & tokens & saving \\",
    ]
    for result in results:
        lines.append(r"\midrule")
        for rule in (*result.rules, *result.yardsticks):
            pool, name = latex_text(result.pool.name), latex_text(rule.name)
            tokens = "not reported" if math.isnan(rule.uncached) else f"{rule.uncached:,.0f}"
            lines.append(
                f"{pool} & {name} & {rule.accuracy.estimate:.3f} & {tokens} & "
                f"{rule.saving:.2f} \\\\"
            )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
