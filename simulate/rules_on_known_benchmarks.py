"""Every rule on recorded pools and on simulated benchmarks: accuracy, tokens, saving, regret.

The recordings are not part of this project; `--data` names a folder that holds them, and those that
are absent are skipped by name. Raw reward scores are brought to [0, 1] by the logistic function.

    python -m simulate.rules_on_known_benchmarks --data FOLDER --json rule_table.json
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import interval, markdown
from msjax.data.runs import Runs, ragged

if TYPE_CHECKING:
    from msjax.evaluate.simulated import RuleWorth

ROUNDS = 6
ALL_TOKENS = 100 * (ROUNDS + 1)
"""Tokens of a simulated question that is given all rounds."""
NORMAL_90 = 1.645
PARALLEL = ("pool_last_letters_gpt35", "pool_math100_rm", "pool_humaneval_selfcritique")
SEQUENTIAL = ("textgrad_gpt4o", "incremental_gsm8k")
FILES = {"textgrad_gpt4o": "trajectories.jsonl", "incremental_gsm8k": "qwen2.5-7b.jsonl"}


@dataclass(frozen=True)
class RuleTable:
    """Replay rules over recorded pools, and run them on simulated benchmarks.

    python -m simulate.rules_on_known_benchmarks --data FOLDER --json rule_table.json
    """

    json: Path
    """results"""
    data: Path | None = None
    """folder with the recordings; simulated benchmarks alone without it"""
    orders: int = 100
    """random orders of parallel pools"""
    price: float = 2e-4
    """price of one token, or of a hundredth of a sample where tokens were not recorded"""
    pilots: int = 10
    """pilots of 50 questions from which rules learn on simulated benchmarks"""
    seed: int = 0
    """seed of all random draws"""


def read_pools(folder: Path) -> list[Runs]:
    """The recorded pools that show every answer or whether it was right."""
    found = []
    for source in (*PARALLEL, *SEQUENTIAL):
        path = folder / source / FILES.get(source, "pool.jsonl")
        if not path.is_file():
            print(f"skipped: {source} is not in {folder}")
            continue
        groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        with path.open() as file:
            for line in map(json.loads, file):
                groups[_name(source, line)].append(line)
        found += [_pool(name, rows, source in PARALLEL) for name, rows in groups.items()]
    return found


def _name(source: str, line: dict[str, Any]) -> str:
    words = [line.get("model", ""), line.get("variant", ""), line.get("benchmark", "")]
    if "temperature" in line:
        words.append(f"temperature {line['temperature']}")
    return f"{source}: {', '.join(word for word in words if word)}"


def _pool(name: str, rows: Sequence[dict[str, Any]], parallel: bool) -> Runs:
    correct = [row["correct"] for row in rows]
    known = all(row.get("answers") for row in rows)
    # Where only the label of an answer is known, every answer is one of its own.
    answers = [row["answers"] if known else list(range(len(row["correct"]))) for row in rows]
    scored = all(row.get("scores") for row in rows)
    scores = ragged(
        [row["scores"] if scored else [np.nan] * len(row["correct"]) for row in rows], np.nan
    )
    if scored and (np.nanmax(scores) > 1 or np.nanmin(scores) < 0):
        scores = 1 / (1 + np.exp(-scores))
    counted = all(row.get("tokens") for row in rows)
    tokens = ragged([row["tokens"] if counted else [100] * len(row["correct"]) for row in rows], 0)
    return Runs.from_arrays(
        correct,
        answers=answers,
        scores=scores,
        tokens={"completion": tokens},
        benchmark=name,
        protocol="parallel" if parallel else "sequential",
        unit="tokens" if counted else "hundredths of a sample",
    )


def replay_pools(options: RuleTable) -> dict[str, Any]:
    """`msjax.evaluate.crossfit` of every recorded pool, as `msjax replay --json` writes it."""
    import jax

    from msjax.cli.replay import as_dict
    from msjax.evaluate.crossfit import evaluate
    from msjax.rules import find_rules

    found = {}
    pools = read_pools(options.data) if options.data else []
    for i, pool in enumerate(tqdm(pools, unit="pool")):
        result = evaluate(
            pool,
            find_rules(pool, every=True),
            jax.random.fold_in(jax.random.key(options.seed), i),
            orders=options.orders,
            price=options.price,
        )
        found[pool.name] = as_dict(result)
        print(f"\n{pool.name}: {pool.questions} questions x {pool.samples}, {pool.unit}\n")
        print(_replay_table([*result.rules, *result.yardsticks], result.yardsticks[0]))
    return found


def _replay_table(rules: Sequence[Any], oracle: Any) -> str:
    header = ["rule", "accuracy", "tokens", "saving", "regret", "optimism"]
    rows = [
        [
            rule.name + (" *" if rule.efficient else ""),
            interval(rule.accuracy, 3),
            f"{rule.uncached:,.0f}",
            interval(rule.saving, 2),
            f"{oracle.net_value.estimate - rule.net_value.estimate:.3f}",
            f"{rule.optimism:+.4f}",
        ]
        for rule in rules
    ]
    return markdown(header, rows)


def simulate(options: RuleTable) -> dict[str, Any]:
    """Rules that learn from small pilots, on benchmarks of known distribution."""
    import jax

    from msjax.evaluate.simulated import POPULATIONS, judge_rules, simulate_pool
    from msjax.rules import find_rules

    found: dict[str, Any] = {}
    for i, population in enumerate(tqdm(POPULATIONS, unit="benchmark")):
        pool = simulate_pool(population, np.random.default_rng(0), 5, ROUNDS)
        offered = find_rules(pool, every=True)
        key = jax.random.fold_in(jax.random.key(options.seed), i)
        rules = judge_rules(
            population,
            offered,
            key,
            pilots=options.pilots,
            rounds=ROUNDS,
            price=options.price,
        )
        found[population.name] = [rule._asdict() for rule in rules]
        print(f"\n{population.name}: {population.says}\n")
        print(_worth_table(rules))
    return found


def _worth_table(rules: Sequence[RuleWorth]) -> str:
    header = ["rule", "accuracy", "tokens", "saving", "regret", "overconfidence"]
    rows = []
    for rule in rules:
        half = NORMAL_90 * rule.tokens_error / ALL_TOKENS
        saving = 1 - rule.tokens / ALL_TOKENS
        over = "" if np.isnan(rule.overconfidence) else f"{rule.overconfidence:+.3f}"
        rows.append(
            [
                rule.rule,
                f"{rule.accuracy:.3f}",
                f"{rule.tokens:,.0f}",
                f"{saving:.2f} [{saving - half:.2f}, {saving + half:.2f}]",
                f"{rule.regret:+.3f} +- {rule.worth_error:.3f}",
                over,
            ]
        )
    return markdown(header, rows)


def main() -> None:
    """Print the tables as Markdown, write the JSON."""
    options = tyro.cli(RuleTable)
    prepare_sampling()
    write_json(options.json, {"simulated": simulate(options), "replayed": replay_pools(options)})
    print(f"\nseed {options.seed}, price {options.price}")


if __name__ == "__main__":
    main()
