"""What rounds 0 and 1 say of the others: written down before these are recorded, scored after.

Each model that `msjax fit` compares is fitted to them, and says what comes: accuracy of every later
round of the same questions, the chance of each to be right, the limit, and whether the first
revision helps. A file is written once and never again; it holds the SHA-256 of what was seen.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.study.plan import Batch
from msjax._io import write_text
from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError

__all__ = ["PREDICTIONS", "predict", "predict_batch", "score", "score_batch", "seen_hash"]

PREDICTIONS = Path(__file__).with_name("predictions")


def seen_hash(runs: Sequence[Trajectory]) -> str:
    """SHA-256 of which answers of which questions were right, and what they were."""
    seen = sorted((run.question_id, run.correct, run.answers) for run in runs)
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def predict(runs: Sequence[Trajectory], rounds: int, seed: int) -> dict[str, Any]:
    """What every model says of the same questions after more rounds, given what these runs show.

    A model that tells questions apart learns little of how they differ from one revision: there
    its prior speaks, and the score says what that was worth.

    Args:
        runs: complete to the same round.
        rounds: the last round that is predicted.
        seed: of the fits and draws.
    """
    import jax

    from msjax.posterior.fits import NotConvergedError, fit_model
    from msjax.posterior.models import CANDIDATES
    from msjax.posterior.sample import host_generator

    seen = Runs.from_records(runs)
    last = seen.right[:, -1].mean()
    models, refused = {}, {}
    for number, model in enumerate(CANDIDATES):
        key = jax.random.fold_in(jax.random.key(seed), number)
        try:
            draws = fit_model(seen, model, key).draws
        except NotConvergedError as error:
            refused[model.name] = str(error)
            continue
        ahead = rounds - seen.rounds
        later = model.continue_runs(host_generator(key), draws, seen.correct, ahead)
        right = later[..., seen.rounds + 1 :] == 1
        accuracy = right.mean(axis=1)
        curves = model.curves(draws, rounds)
        expected, rates = curves.mean_accuracy, model.first_revision(draws)
        limit = curves.limit
        models[model.name] = {
            "p_ic": _interval(rates.p_ic),
            "p_ci": _interval(rates.p_ci),
            "first_revision_helps": float(np.mean(expected[:, 1] > expected[:, 0])),
            "accuracy": [_interval(accuracy[:, k]) for k in range(ahead)],
            "rises": float(np.mean(accuracy[:, -1] > last)),
            "falls": float(np.mean(accuracy[:, -1] < last)),
            "limit": None if limit is None else _interval((curves.weight * limit).sum(axis=1)),
            "right": np.round(right.mean(axis=0), 4).tolist(),
        }
    return {
        "seen_sha256": seen_hash(runs),
        "question_ids": list(seen.question_ids),
        "rounds_seen": seen.rounds,
        "rounds_predicted": list(range(seen.rounds + 1, rounds + 1)),
        "accuracy_seen": seen.right.mean(axis=0).tolist(),
        "models": models,
        "refused": refused,
    }


def predict_batch(batch: Batch, runs: Sequence[Trajectory], folder: Path) -> None:
    """Writes what is predicted of a batch, once.

    Raises:
        InputError: it was predicted from other answers.
    """
    path = _path(batch, folder)
    if path.exists():
        if json.loads(path.read_text())["seen_sha256"] != seen_hash(runs):
            raise InputError(
                f"{path}: predicts from other first answers than are recorded; restore these, or "
                "remove the file and all later rounds"
            )
        return
    found = predict(runs, batch.strategy.rounds, zlib.crc32(str(batch).encode()))
    write_text(path, json.dumps(found, indent=1) + "\n")
    print(f"{path.name}: predicted by {', '.join(found['models'])}")


def score(predicted: dict[str, Any], runs: Sequence[Trajectory]) -> dict[str, Any]:
    """How the predictions of every model fared.

    For each later round: the accuracy seen, whether it lies in the model's 90 % interval, and per
    question the mean log-probability (nats) and Brier score of right or wrong. Beside the models
    stands "unchanged": every answer stays as right as it was seen last, with the probability that
    an answer of the seen rounds did.

    Raises:
        InputError: the first rounds of the runs are not those that were predicted from.
    """
    seen, later = predicted["rounds_seen"], predicted["rounds_predicted"]
    if seen_hash([run.ended(seen + 1) for run in runs]) != predicted["seen_sha256"]:
        raise InputError("the first rounds of these runs are not those that were predicted from")
    by_id = {run.question_id: run for run in runs}
    ordered = [by_id[name] for name in predicted["question_ids"]]
    right = np.array([run.correct for run in ordered], dtype=float)
    kept = (1 + (right[:, seen] == right[:, seen - 1]).sum()) / (2 + len(right))
    stays = np.where(right[:, seen] == 1, kept, 1 - kept)
    chances = {"unchanged": np.repeat(stays[:, None], len(later), axis=1)}
    chances |= {name: np.array(model["right"]) for name, model in predicted["models"].items()}
    truth = right[:, later]
    observed = truth.mean(axis=0)
    scores: dict[str, Any] = {}
    for name, chance in chances.items():
        chance = np.clip(chance, 1e-3, 1 - 1e-3)
        hit = np.where(truth == 1, chance, 1 - chance)
        scores[name] = {
            "log_score": float(np.log(hit).mean()),
            "brier": float(((chance - truth) ** 2).mean()),
        }
        if name in predicted["models"]:
            model = predicted["models"][name]
            ends = model["accuracy"]
            scores[name]["inside"] = [
                bool(end["low"] - 1e-9 <= x <= end["high"] + 1e-9)
                for end, x in zip(ends, observed, strict=True)
            ]
            scores[name]["said"] = "rises" if model["rises"] > model["falls"] else "falls"
    change = float(observed[-1] - right[:, seen].mean())
    return {
        "accuracy_later": observed.tolist(),
        "change": change,
        "went": "rises" if change > 0 else "falls" if change < 0 else "stays",
        "scores": scores,
    }


def score_batch(batch: Batch, runs: Sequence[Trajectory], folder: Path) -> dict[str, Any]:
    """Scores what was predicted of a batch, beside the predictions, which stay as they are."""
    path = _path(batch, folder)
    found = score(json.loads(path.read_text()), runs)
    write_text(path.with_suffix(".score.json"), json.dumps(found, indent=1) + "\n")
    print(f"{batch}: {found['went']} by {found['change']:+.3f} after the rounds that were seen")
    return found


def _path(batch: Batch, folder: Path) -> Path:
    return folder / f"{batch.cell}.{batch.start}-{batch.stop - 1}.json"


def _interval(draws: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return {"low": float(low), "median": float(median), "high": float(high)}
