"""What msjax says of trajectories that others recorded: model, checks, bounds, later rounds.

The recordings are not part of this project. `--data` names a folder that holds them, one folder
per source; those that are absent are skipped by name. Fits are kept in `--json` one by one, and a
second call goes on where the first stopped.

    python -m inference.atlas --data FOLDER --json real_data.json
"""

from __future__ import annotations

import csv
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import markdown
from msjax.data.runs import Runs

States = dict[tuple[str, str], list[list[int]]]
"""States of every question, by model and benchmark."""


@dataclass(frozen=True)
class RealData:
    """Fit every per-question recording, and predict its later rounds from its first half.

    python -m inference.atlas --data FOLDER --json real_data.json
    """

    data: Path
    """folder with the recordings"""
    json: Path
    """results, read again to go on where an earlier call stopped"""
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
            runs[line["model"], line["benchmark"]].append(line["correct"])
    return runs


def _incremental(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "qwen2.5-7b.jsonl"):
        benchmark = f"GSM8K, temperature {line['temperature']}"
        runs[line["model"], benchmark].append(line["correct"])
    return runs


def _trajectories(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        runs[line["model"], line["benchmark"]].append(line["correct"])
    return runs


def _oracle_stop(folder: Path) -> States:
    runs = _trajectories(folder)
    with (folder / "direct_answer.csv").open() as file:
        for row in csv.DictReader(file):
            runs[row["model"], "GSM8K, bare answers"].append([int(c) for c in row["correct"]])
    return runs


def _self_reflection(folder: Path) -> States:
    runs: States = defaultdict(list)
    with (folder / "retries.csv").open() as file:
        for row in csv.DictReader(file):
            retried = [int(row["retry_correct"])] if row["retry_correct"] else []
            runs[row["model"], "10 exams"].append([int(row["baseline_correct"]), *retried])
    return runs


def _reflexion(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "trials.jsonl"):
        solved = line["solved_by_trial"]
        trials = solved[: solved.index(1) + 1] if 1 in solved else solved
        runs["GPT-3/3.5 agent", f"{line['benchmark']}, {line['variant']}"].append(trials)
    return runs


SOURCES: dict[str, tuple[Callable[[Path], States], bool, bool]] = {
    # name of the folder: reader, stopped by an oracle, rounds are revisions
    "textgrad_gpt4o": (_textgrad, False, True),
    "incremental_gsm8k": (_incremental, False, True),
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
                rows,
                benchmark=benchmark,
                model=model,
                protocol="sequential" if revises else "prefix",
                censored=[oracle and 1 in row for row in rows],
            )
            found.append(Recording(source, count))
    return found


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
    for recording in tqdm(recordings, unit="recording"):
        if recording.name not in done:
            done[recording.name] = study(recording, options.seed)
            write_json(options.json, done)
    done = json.loads(options.json.read_text())
    print(f"\nseed {options.seed}\n\n{fits_table(done)}\n\n{later_table(done)}")


if __name__ == "__main__":
    main()
