"""Predicted priors against rules that need no training, by replay: whether features help.

Simulated benchmarks have 16 features per question, of which three (rounds) or two (samples) are the
question's own effects, with the stated correlation, in an unknown rotation. Predictors and rules
learn from the same labelled questions and are judged on others. Recorded runs of SmolLM2 are split
by question, anew for every seed. A round of revision, or a sample, costs --cost correct answers.

    python -m inference.predicted_priors --json predictors.json
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import interval, markdown
from msjax.data.importers.reading import read
from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.evaluate.means import UNBOUNDED, mean_interval
from msjax.evaluate.replay import outcome, replay
from msjax.evaluate.simulated import Population, simulate_pool
from msjax.evaluate.streams import streams
from msjax.intervals import Interval
from msjax.posterior.for_rules import PosteriorForRules
from msjax.rules.belief import belief_rule
from msjax.rules.grid import Grid, each_setting
from msjax.rules.protocol import StoppingRule
from msjax.rules.registry import find_rule, find_rules
from msjax.rules.spec import RuleSpec, Training
from msjax.theory.chain import TwoStateChain
from msjax.train.priors.features import FeatureTable, read_features
from msjax.train.priors.predictor import Predictor, split_questions, train
from msjax.train.priors.rules import predicted_rules
from msjax.train.priors.targets import TARGETS, question_names

_FEATURES = 16
_S_MINS = (0.5, 0.6, 0.7, 0.8, 0.9)
_CONFIDENCES = (0.1, 0.5, 0.8, 0.95)
"""The registry's confidences end at .5, too soon for rules that know a question's distribution."""
_PAIRS = {
    "rounds": (
        ("markovscale,prior=predicted", "markovscale"),
        ("belief,prior=predicted", "belief"),
        ("markovscale,scores=yes,prior=predicted", "markovscale,scores=yes"),
        ("belief,scores=yes,prior=predicted", "belief,scores=yes"),
    ),
    "samples": (
        ("optscale,prior=predicted", "optscale"),
        ("optscale,prior=weighted", "optscale"),
    ),
}


@dataclass(frozen=True)
class Predictors:
    """Compare rules with and without predicted priors.

    python -m inference.predicted_priors --json predictors.json
    """

    seeds: int = 6
    """populations, or splits of the recorded questions"""
    strengths: tuple[float, ...] = (0.0, 0.5, 0.9)
    """correlation of a feature with a question's effect"""
    labelled: int = 400
    """simulated questions learnt from"""
    questions: int = 500
    """simulated questions judged on"""
    cost: float = 0.03
    """cost of a round or a sample in correct answers"""
    runs: Path | None = None
    """recorded rounds, or samples, with confidences or log-probabilities as scores"""
    features: Path | None = None
    """features of their questions, by `msjax train priors features`"""
    json: Path | None = None
    """write the results here as well"""


class Study(NamedTuple):
    """One comparison.

    Attributes:
        name: of the population.
        seeds, questions: how many; questions are those judged on, per seed.
        epochs: of training that helped, by seed and part of the target.
        worth: of every rule, correct answers less cost, per question.
        gains: of a rule told predicted priors over the same rule without; paired.
    """

    name: str
    seeds: int
    questions: int
    epochs: list[tuple[int, ...]]
    worth: dict[str, tuple[float, ...]]
    gains: dict[str, Interval]


class Judged(NamedTuple):
    """Net value, accuracy and answers used, per question."""

    net: np.ndarray
    right: np.ndarray
    n_used: np.ndarray


def effects(
    random: np.random.Generator, questions: int, count: int, strength: float
) -> tuple[np.ndarray, FeatureTable]:
    """Normal effects of questions, and features that show them with this correlation."""
    effect = random.normal(size=(questions, count))
    noise = random.normal(size=(questions, _FEATURES))
    shown = noise.copy()
    shown[:, :count] = strength * effect + np.sqrt(1 - strength**2) * noise[:, :count]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(_FEATURES, _FEATURES)))[0]
    names = tuple(f"simulated/{i}" for i in range(questions))
    return effect, FeatureTable("simulated", names, (shown @ rotation).astype(np.float32))


def simulated_rounds(
    random: np.random.Generator, questions: int, strength: float
) -> tuple[Runs, FeatureTable, np.ndarray]:
    """Chains with logit-normal rates and a verifier of some use; also the true chains."""
    effect, table = effects(random, questions, 3, strength)
    rates = 1 / (1 + np.exp(-(np.array([0.3, -1.2, -2.0]) + effect * np.array([1.2, 1.0, 1.0]))))

    def states(random: np.random.Generator, n: int, rounds: int) -> np.ndarray:
        right = np.empty((n, rounds + 1), bool)
        right[:, 0] = random.random(n) < rates[:, 0]
        for k in range(rounds):
            change = np.where(right[:, k], rates[:, 2], rates[:, 1])
            right[:, k + 1] = right[:, k] ^ (random.random(n) < change)
        return right

    population = Population(
        "simulated", "", states, right_scores=(4.0, 2.0), wrong_scores=(2.0, 3.0)
    )
    return simulate_pool(population, random, questions, rounds=5), table, rates


def simulated_samples(
    random: np.random.Generator, questions: int, strength: float, samples: int = 16
) -> tuple[Runs, FeatureTable]:
    """Beta scores with a mean and a spread of the question's; a score is the chance to be right."""
    effect, table = effects(random, questions, 2, strength)
    mean, total = 1 / (1 + np.exp(-(0.4 + effect[:, :1]))), np.exp(2 + 0.5 * effect[:, 1:])
    scores = random.beta(mean * total, (1 - mean) * total, (questions, samples))
    right = random.random(scores.shape) < scores
    texts = np.where(right, 0, random.integers(1, 6, right.shape))
    return (
        Runs.from_arrays(
            right,
            answers=texts,
            scores=scores,
            tokens={"completion": np.full(right.shape, 100.0)},
            benchmark="simulated",
            protocol="parallel",
        ),
        table,
    )


def learn(pools: Sequence[Runs], target: str, table: FeatureTable, seed: int) -> Predictor:
    """A predictor of these questions."""
    kind = TARGETS[target]
    names, data = kind.read(pools)
    return train(kind, data, names, table, seed=seed)


def judge(
    rule: RuleSpec,
    on_labelled: RuleSpec,
    training: Training,
    choosing: Runs,
    judged: Runs,
    orders: int = 5,
) -> Judged:
    """A rule that learns from some labelled questions, its setting being the best on `choosing`."""
    parameters, price = rule.parameters(training), training.price

    def follow(rule: RuleSpec, pool: Runs, parameters: Any) -> Any:
        ordered = streams(pool, jax.random.key(0), orders)
        side_info = None if rule.side_info is None else rule.side_info(pool)
        return outcome(pool.tokens, ordered, replay(rule.make, ordered, parameters, side_info))

    if len(rule.settings) > 1:
        tried = follow(on_labelled, choosing, parameters)
        best = int(np.argmax((tried.accuracy - price * tried.uncached).mean(axis=1)))
        parameters = jax.tree.map(
            lambda x: np.asarray(x)[best : best + 1], each_setting(parameters)
        )
    result = follow(rule, judged, parameters)
    net = result.accuracy[0] - price * result.uncached[0]
    return Judged(net, result.accuracy[0], result.n_used[0])


def training_of(labelled: Runs, chosen: np.ndarray, cost: float) -> Training:
    """The labelled questions chosen, an answer costing so many correct ones."""
    price = cost / float(labelled.uncached[chosen, -1].mean())
    return Training(labelled, chosen, 1.0, price, PosteriorForRules(jax.random.key(0)))


def with_settings(rule: RuleSpec) -> RuleSpec:
    """An OptScale rule with the settings above, any other rule as it is."""
    if not rule.name.startswith("optscale"):
        return rule
    settings = tuple(f"s_min={s:g},confidence={c:g}" for s in _S_MINS for c in _CONFIDENCES)
    grid = Grid((np.array(_S_MINS, np.float32), np.array(_CONFIDENCES, np.float32)))
    return dataclasses.replace(rule, settings=settings, parameters=lambda _: grid)


def free_rules(pool: Runs) -> dict[str, RuleSpec]:
    """Rules without a predictor that are compared."""
    kind = "samples" if pool.parallel else "rounds"
    fixed = ("fixed+majority", "fixed+best_score") if pool.parallel else ("fixed",)
    wanted = {*fixed, *(free for _, free in _PAIRS[kind])}
    found = find_rules(pool, every=True)
    return {rule.name: with_settings(rule) for rule in found if rule.name in wanted}


def true_prior(judged: Runs, rates: np.ndarray) -> RuleSpec:
    """Gate and N* by every question's own chain: what no predictor can beat without changes."""
    known = find_rule("belief", judged)
    info = rates.astype(np.float32)
    return dataclasses.replace(known, make=_own_chain, side_info=lambda _: info)


def _own_chain(p: Any, chain: Any) -> StoppingRule:
    return belief_rule(TwoStateChain(*chain), p[4], price=1.0)


def compare(
    predictor: Predictor,
    table: FeatureTable,
    labelled: Runs,
    chosen: np.ndarray,
    judged: Runs,
    cost: float,
) -> dict[str, Judged]:
    """All rules on `judged`; settings are chosen on labelled questions new to the predictor."""
    names = question_names(labelled)
    new = np.array([name not in predictor.learnt_from for name in names])
    choosing = labelled.take(np.flatnonzero(new if new.any() else chosen))
    training = training_of(labelled, chosen, cost)
    found = {
        name: judge(rule, rule, training, choosing, judged)
        for name, rule in free_rules(judged).items()
    }
    pairs = zip(
        predicted_rules(predictor, table, judged),
        predicted_rules(predictor, table, choosing),
        strict=True,
    )
    for rule, on_labelled in (tuple(map(with_settings, pair)) for pair in pairs):
        found[rule.name] = judge(rule, on_labelled, training, choosing, judged)
    return found


def summarise(
    name: str, kind: str, found: list[dict[str, Judged]], epochs: list[tuple[int, ...]]
) -> Study:
    """Means over seeds; gains are paired by seed, a seed being one independent population."""
    worth = {
        rule: tuple(
            float(np.mean([x.mean() for x in fields])) for fields in zip(*by_seed, strict=True)
        )
        for rule in found[0]
        for by_seed in [[one[rule] for one in found]]
    }
    gains = {}
    for predicted, free in _PAIRS[kind]:
        if predicted in found[0]:
            each = [one[predicted].net.mean() - one[free].net.mean() for one in found]
            gains[f"{predicted} - {free}"] = mean_interval(np.array(each), UNBOUNDED)
    return Study(name, len(found), len(next(iter(found[0].values())).net), epochs, worth, gains)


def simulated_study(kind: str, strength: float, options: Predictors, bar: tqdm) -> Study:
    """One population at every seed."""
    found, epochs = [], []
    for seed in range(options.seeds):
        random = np.random.default_rng([seed, int(100 * strength), kind == "rounds"])
        if kind == "rounds":
            labelled, learnt, _ = simulated_rounds(random, options.labelled, strength)
            judged, table, rates = simulated_rounds(random, options.questions, strength)
        else:
            labelled, learnt = simulated_samples(random, options.labelled, strength)
            judged, table = simulated_samples(random, options.questions, strength)
        # Questions judged on are other questions, so they get other names.
        judged = dataclasses.replace(judged, label="judged")
        names = tuple(f"judged/{i}" for i in judged.question_ids)
        both = FeatureTable(
            "simulated",
            (*learnt.names, *names),
            np.concatenate([learnt.vectors, table.vectors]),
        )
        target = "chain" if kind == "rounds" else "scores"
        predictor = learn([labelled], target, both, seed)
        everyone = np.ones(labelled.questions, bool)
        one = compare(predictor, both, labelled, everyone, judged, options.cost)
        if kind == "rounds":
            truth = true_prior(judged, rates)
            training = training_of(labelled, everyone, options.cost)
            one["true chains"] = judge(truth, truth, training, labelled, judged)
        found.append(one)
        epochs.append(predictor.epochs)
        bar.update()
    return summarise(f"{kind}, correlation {strength:g}", kind, found, epochs)


def mixed(pools: Sequence[Runs]) -> Runs:
    """Several benchmarks as one stream of questions."""

    def joined(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [
            array[i, : pool.recorded[i]]
            for pool, array in zip(pools, arrays, strict=True)
            for i in range(pool.questions)
        ]

    return Runs.from_arrays(
        joined([pool.correct for pool in pools]),
        answers=joined([pool.answers for pool in pools]),
        scores=joined([pool.scores for pool in pools]),
        tokens={name: joined([pool.tokens[name] for pool in pools]) for name in pools[0].tokens},
        question_ids=[name for pool in pools for name in question_names(pool)],
        benchmark="mixed",
        protocol=pools[0].protocol,
    )


def recorded_study(runs: Path, options: Predictors, bar: tqdm) -> list[Study]:
    """Recorded questions, split anew for every seed: as one stream, and benchmark by benchmark.

    A question's gain is its mean over the seeds that judged on it, and the interval is over
    questions. By benchmark, rules without a predictor learn every benchmark's own rates.
    """
    if options.features is None:
        raise InputError("--features is None; give features of the recorded questions")
    table = read_features(options.features)
    whole = mixed(read(runs).groups).with_confidences()
    renamed = FeatureTable(
        table.source, tuple(f"mixed/{name}" for name in table.names), table.vectors
    )
    kind, target = ("samples", "scores") if whole.parallel else ("rounds", "chain")
    names = question_names(whole)
    benchmark = np.array([i.rpartition("/")[0] for i in whole.question_ids])
    gathered: dict[str, defaultdict[str, dict[int, list[Judged]]]] = {
        "as one stream": defaultdict(dict),
        "benchmark by benchmark": defaultdict(dict),
    }
    epochs = []
    for seed in range(options.seeds):
        predictor = learn([whole], target, renamed, seed)
        epochs.append(predictor.epochs)
        split = split_questions(names, seed)
        known = np.sort(np.concatenate([split.train, split.validation]))
        labelled, judged = whole.take(known), whole.take(split.test)
        groups = {
            "as one stream": [np.ones(len(names), bool)],
            "benchmark by benchmark": [benchmark == b for b in dict.fromkeys(benchmark)],
        }
        for how, parts in groups.items():
            for part in parts:
                found = compare(predictor, renamed, labelled, part[known], judged, options.cost)
                for rule, one in found.items():
                    for place in np.flatnonzero(part[split.test]):
                        row = Judged(one.net[place], one.right[place], one.n_used[place])
                        by_question = gathered[how][rule]
                        by_question.setdefault(int(split.test[place]), []).append(row)
        bar.update()
    studies = []
    for how, rules in gathered.items():
        means = {
            rule: {i: np.mean(rows, axis=0) for i, rows in by_question.items()}
            for rule, by_question in rules.items()
        }
        order = sorted(next(iter(means.values())))
        each = {rule: np.array([values[i] for i in order]) for rule, values in means.items()}
        gains = {
            f"{predicted} - {free}": mean_interval(
                each[predicted][:, 0] - each[free][:, 0], UNBOUNDED
            )
            for predicted, free in _PAIRS[kind]
            if predicted in each
        }
        worth = {rule: tuple(map(float, x.mean(axis=0))) for rule, x in each.items()}
        studies.append(
            Study(f"recorded {kind}, {how}", options.seeds, len(order), epochs, worth, gains)
        )
    return studies


def show(study: Study) -> None:
    """Two tables."""
    print(
        f"\n**{study.name}**: {study.seeds} seeds, {study.questions} questions; epochs "
        f"{', '.join('/'.join(map(str, epochs)) for epochs in study.epochs)}\n"
    )
    rows = [
        (rule, f"{net:.4f}", f"{right:.3f}", f"{n_used:.2f}")
        for rule, (net, right, n_used) in study.worth.items()
    ]
    print(markdown(("rule", "net value", "accuracy", "answers"), rows))
    print()
    gains = [(pair, interval(gain, 4)) for pair, gain in study.gains.items()]
    print(markdown(("gain of the predicted prior", "net value, paired"), gains))


def main() -> None:
    """Compare, print the tables, write the JSON."""
    options = tyro.cli(Predictors)
    prepare_sampling()
    turns = options.seeds * (2 * len(options.strengths) + bool(options.runs))
    studies: list[Study] = []
    with tqdm(total=turns, desc="predictors", unit="seed", disable=None) as bar:
        for kind in _PAIRS:
            for strength in options.strengths:
                studies.append(simulated_study(kind, strength, options, bar))
                show(studies[-1])
        if options.runs:
            studies += recorded_study(options.runs, options, bar)
    for study in studies[2 * len(options.strengths) :]:
        show(study)
    print(f"\ncost {options.cost:g}; seeds 0 to {options.seeds - 1}; intervals 90 %")
    if options.json:
        write_json(options.json, {"options": options, "studies": [x._asdict() for x in studies]})


if __name__ == "__main__":
    main()
