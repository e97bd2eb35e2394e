"""What msjax says of trajectories that others recorded: gain, model, checks, bounds, later rounds.

The recordings are not part of this project. `--data` names a folder that holds them, one folder
per source; those that are absent are skipped by name. Fits are kept in `--json` one by one, and a
second call goes on where the first stopped.

    python -m inference.atlas --data FOLDER --json real_data.json --gains gains.json
"""

from __future__ import annotations

import csv
import json
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import markdown
from msjax.data.runs import Runs
from msjax.decision.verdict import LEVEL, word
from msjax.evaluate.means import DIFFERENCES, mean_interval, ratio_interval
from msjax.intervals import Interval

MARGIN = 0.02
"""A loss up to this counts as none."""


class Row(NamedTuple):
    """One run.

    Attributes:
        correct: after each round.
        cluster: runs of one cluster are not independent; None: it is one by itself.
    """

    correct: list[int]
    cluster: str | None = None


States = dict[tuple[str, str], list[Row]]
"""Runs by model and benchmark."""


@dataclass(frozen=True)
class RealData:
    """Fit every per-question recording, and predict its later rounds from its first half.

    python -m inference.atlas --data FOLDER --json real_data.json --gains gains.json
    """

    data: Path
    """folder with the recordings"""
    json: Path = Path("real_data.json")
    """results of fits, read again to go on where an earlier call stopped"""
    gains: Path | None = None
    """what the last round gains over the first answer, a second file, made in seconds"""
    fits: bool = True
    """also fit and predict, which takes hours"""
    only: str = ""
    """only recordings whose name contains this"""
    seed: int = 0
    """seed of all sampling"""


@dataclass(frozen=True)
class Recording:
    """One benchmark of one source."""

    source: str
    count: Runs

    @property
    def name(self) -> str:
        """Source, language model and benchmark."""
        return f"{self.source}: {self.count.model}, {self.count.name}"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        yield from map(json.loads, file)


def _textgrad(folder: Path) -> States:
    runs: States = defaultdict(list)
    for name in ("trajectories.jsonl", "leetcode_hard.jsonl"):
        for line in _lines(folder / name):
            cluster = line["question_id"] if name == "leetcode_hard.jsonl" else None
            runs[line["model"], line["benchmark"]].append(Row(line["correct"], cluster))
    return runs


def _incremental(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "qwen2.5-7b.jsonl"):
        benchmark = f"GSM8K, temperature {line['temperature']}"
        runs[line["model"], benchmark].append(Row(line["correct"]))
    return runs


def _trajectories(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        runs[line["model"], line["benchmark"]].append(Row(line["correct"]))
    return runs


def _oracle_stop(folder: Path) -> States:
    runs = _trajectories(folder)
    with (folder / "direct_answer.csv").open() as file:
        for row in csv.DictReader(file):
            runs[row["model"], "GSM8K, bare answers"].append(Row([int(c) for c in row["correct"]]))
    return runs


def _self_reflection(folder: Path) -> States:
    runs: States = defaultdict(list)
    with (folder / "retries.csv").open() as file:
        for row in csv.DictReader(file):
            retried = [int(row["retry_correct"])] if row["retry_correct"] else []
            runs[row["model"], "10 exams"].append(Row([int(row["baseline_correct"]), *retried]))
    return runs


def _reflexion(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "trials.jsonl"):
        solved = line["solved_by_trial"]
        trials = solved[: solved.index(1) + 1] if 1 in solved else solved
        runs["GPT-3/3.5 agent", f"{line['benchmark']}, {line['variant']}"].append(Row(trials))
    return runs


def _debate(folder: Path) -> States:
    """The same twenty questions are put to each model in many ways."""
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        (question,) = re.findall(r"sample(\d+)", line["question_id"])
        runs[line["model"], "MMLU, debated"].append(Row(line["correct"], question))
    return runs


SOURCES: dict[str, tuple[Callable[[Path], States], bool, bool]] = {
    # name of the folder: reader, stopped by an oracle, rounds are revisions
    "textgrad_gpt4o": (_textgrad, False, True),
    "incremental_gsm8k": (_incremental, False, True),
    "debate_mmlu": (_debate, False, True),
    "cot_prefix_mmlupro": (_trajectories, False, False),
    "oracle_stop_gsm8k": (_oracle_stop, True, True),
    "self_reflection_mcqa": (_self_reflection, True, True),
    "intercode_turns": (_trajectories, True, True),
    "reflexion_trials": (_reflexion, True, True),
}


_AGAINST = ("NOT REVISIONS", "CONTRADICTED", "NOT ONE CHAIN")
"""Warnings that speak against the assumption."""


def read_recordings(folder: Path) -> list[Recording]:
    """All recordings in `folder` that show every question's rounds."""
    found = []
    for source, (read, oracle, revises) in SOURCES.items():
        if not (folder / source).is_dir():
            print(f"skipped: {source} is not in {folder}")
            continue
        for (model, benchmark), rows in read(folder / source).items():
            count = Runs.from_arrays(
                [row.correct for row in rows],
                cluster=_clusters(rows),
                benchmark=benchmark,
                model=model,
                protocol="sequential" if revises else "prefix",
                censored=[oracle and 1 in row.correct for row in rows],
            )
            found.append(Recording(source, count))
    return found


def _clusters(rows: Sequence[Row]) -> list[str] | None:
    names = [row.cluster for row in rows if row.cluster is not None]
    return names if len(names) == len(rows) else None


def predict_later_rounds(recording: Recording, seed: int) -> dict[str, Any]:
    """Fit the average of models to the first half of the rounds, and score it on the later ones.

    `score` and `pooled` are log-probabilities of the later rounds (nats), `inside` says of every
    later round whether its observed accuracy lies in the central 90 % predictive interval,
    `announced` whether what was seen of the first half spoke against the model.
    """
    import jax
    import scipy.special

    from msjax.posterior import fit
    from msjax.posterior.average import apportion
    from msjax.posterior.compare import leave_future_out, training_rounds
    from msjax.posterior.fits import fit_model
    from msjax.posterior.models import find_model
    from msjax.posterior.sample import host_generator

    count = recording.count
    rounds = training_rounds(count.rounds)
    early = count.truncated(rounds)
    key, pooled_key, draw_key = jax.random.split(_key(recording, seed + 1), 3)
    found = fit(early, seed=key)
    fits = [(c.fit, c.weight) for c in found.candidates if c.fit]
    weights = np.array([weight for _, weight in fits])
    by_model = np.stack([leave_future_out(one, count) for one, _ in fits])
    score = scipy.special.logsumexp(by_model, axis=0, b=weights[:, None])
    pooled = leave_future_out(fit_model(early, find_model("pooled"), pooled_key), count)
    random = host_generator(draw_key)
    predicted = np.concatenate(
        [
            one.model.continue_runs(
                random,
                {name: x[:share] for name, x in one.draws.items()},
                early.correct,
                count.rounds - rounds,
            )
            for (one, _), share in zip(fits, apportion(weights.tolist(), 1000), strict=True)
            if share
        ]
    )
    accuracy = (predicted[..., rounds + 1 :] == 1).mean(axis=1)
    low, high = np.quantile(accuracy, [0.05, 0.95], axis=0)
    observed = (count.correct[:, rounds + 1 :] == 1).mean(axis=0)
    difference = score - pooled
    return {
        "trained_on": rounds,
        "model": found.leading.model.name,
        "score": score.sum(),
        "pooled": pooled.sum(),
        "gain": difference.sum(),
        "gain_error": np.sqrt(len(difference) * difference.var(ddof=1)),
        "observed": observed,
        "low": low,
        "high": high,
        "inside": (observed >= low) & (observed <= high),
        "announced": [w for w in found.warnings if w.startswith(_AGAINST)],
    }


def gains(recordings: Sequence[Recording]) -> dict[str, Any]:
    """What the last round gains over the first answer, where no oracle stopped the runs.

    Intervals of all recordings hold at once with probability .9. Fix and damage are shares of the
    wrong and of the right answers that one round changed, whatever the round.
    """
    free = [r for r in recordings if not r.count.n_censored and r.count.protocol == "sequential"]
    level = LEVEL ** (1 / max(len(free), 1))
    found = {}
    for recording in free:
        runs = recording.count
        right = runs.correct == 1
        names = np.arange(runs.questions) if runs.cluster is None else np.array(runs.cluster)
        _, cluster = np.unique(names, return_inverse=True)
        rows, last = np.arange(runs.questions), runs.recorded - 1
        moved = np.arange(right.shape[1] - 1) < last[:, None]
        before, after = right[:, :-1], right[:, 1:]
        difference = mean_interval(
            right[rows, last].astype(float) - right[:, 0],
            DIFFERENCES,
            cluster=cluster,
            level=level,
        )
        found[recording.name] = {
            "questions": runs.questions,
            "clusters": int(cluster.max()) + 1,
            "rounds": runs.rounds,
            "first": right[:, 0].mean(),
            "last": right[rows, last].mean(),
            "gain": difference,
            "fix": _rate(moved & ~before & after, moved & ~before, cluster),
            "damage": _rate(moved & before & ~after, moved & before, cluster),
            "word": word(difference.low, difference.high, MARGIN),
        }
    return found


def _rate(changed: np.ndarray, chances: np.ndarray, cluster: np.ndarray) -> Interval:
    """Share of the chances to change that were taken, with one more, half taken."""
    found = ratio_interval(
        np.append(changed.sum(axis=1), 0.5),
        np.append(chances.sum(axis=1), 1.0),
        cluster=np.append(cluster, cluster.max() + 1),
    )
    return Interval(found.estimate, max(found.low, 0.0), min(found.high, 1.0))


def gains_table(found: dict[str, Any]) -> str:
    """One row per recording: accuracy before and after, gain, rates, and the word."""
    rows = [
        [
            name,
            f"{x['questions']} x {x['rounds']}"
            + (f" ({x['clusters']} questions)" if x["clusters"] < x["questions"] else ""),
            f"{x['first']:.3f} -> {x['last']:.3f}",
            "{estimate:+.3f} [{low:+.3f}, {high:+.3f}]".format(**x["gain"]),
            "{estimate:.3f} [{low:.3f}, {high:.3f}]".format(**x["fix"]),
            "{estimate:.3f} [{low:.3f}, {high:.3f}]".format(**x["damage"]),
            x["word"],
        ]
        for name, x in found.items()
    ]
    header = ["recording", "runs x rounds", "accuracy", "gain", "fix", "damage", "asking again is"]
    return markdown(header, rows)


def study(recording: Recording, seed: int) -> dict[str, Any]:
    """Everything `msjax fit` says of a recording, and how its first half predicts the rest."""
    from msjax.posterior import fit
    from msjax.posterior.words import as_dict

    found = fit(recording.count, seed=_key(recording, seed))
    result: dict[str, Any] = {"fit": as_dict(found), "later": None}
    if not recording.count.n_censored and recording.count.rounds >= 2:
        result["later"] = predict_later_rounds(recording, seed)
    return result


def _key(recording: Recording, seed: int) -> Any:
    import jax

    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(recording.name.encode()))


def _interval(found: dict[str, float] | None) -> str:
    if found is None:
        return "not identified"
    return f"{found['median']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def fits_table(results: dict[str, Any]) -> str:
    """One row per recording: model, failed checks, bounds after the observed rounds and limits."""
    rows = []
    for name, result in results.items():
        fit = result["fit"]
        after, limit = fit["bounds"]["after"][fit["rounds"]], fit["bounds"]["limit"]
        failed = [c["name"] for c in fit["checks"] if c["contradicted"]]
        misfit = [c["statistic"] for c in fit["ppc"] if c["surprising"]]
        rows.append(
            [
                name,
                f"{fit['questions']} x {fit['rounds']}"
                + (" (censored)" if fit["censored"] else ""),
                fit["model"],
                ", ".join(failed) or "none",
                ", ".join(misfit) or "none",
                _interval(fit["parameters"]["p_ic"]["posterior"]),
                _interval(after["neutral"]),
                _interval(limit["neutral"]),
                _interval(limit["upper"]),
            ]
        )
    header = [
        "recording",
        "questions x rounds",
        "model",
        "checks one chain fails",
        "model misfit",
        "p_ic",
        "accuracy after",
        "limit",
        "upper bound",
    ]
    return markdown(header, rows)


def later_table(results: dict[str, Any]) -> str:
    """One row per uncensored recording: the first half of the rounds predicting the later ones."""
    rows = []
    for name, result in results.items():
        later = result["later"]
        if later is None:
            continue
        inside = later["inside"]
        rows.append(
            [
                name,
                str(later["trained_on"]),
                later["model"],
                f"{later['gain']:+.1f} +- {later['gain_error']:.1f}",
                f"{sum(inside)} of {len(inside)}",
                "; ".join(w.split(":")[0] for w in later["announced"]) or "nothing",
            ]
        )
    header = [
        "recording",
        "rounds seen",
        "model chosen",
        "elpd of later rounds over pooled",
        "rounds inside 90 %",
        "said beforehand",
    ]
    return markdown(header, rows)


def main() -> None:
    """Study the recordings, print the tables as Markdown, write the JSON."""
    options = tyro.cli(RealData)
    prepare_sampling()
    done = json.loads(options.json.read_text()) if options.json.exists() else {}
    recordings = [r for r in read_recordings(options.data) if options.only in r.name]
    if not recordings:
        print(f"--only is {options.only!r}, which no recording's name contains", file=sys.stderr)
        sys.exit(2)
    if options.gains is not None:
        write_json(options.gains, gains(recordings))
        print(gains_table(json.loads(options.gains.read_text())))
    for recording in tqdm(recordings if options.fits else [], unit="recording"):
        if recording.name not in done:
            done[recording.name] = study(recording, options.seed)
            write_json(options.json, done)
    if not options.fits:
        return
    done = json.loads(options.json.read_text())
    print(f"\nseed {options.seed}\n\n{fits_table(done)}\n\n{later_table(done)}")


if __name__ == "__main__":
    main()
