# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. How sure can one be? Bounds of a real benchmark
#
# A small model, SmolLM2-135M-Instruct, answered 40 questions of integer arithmetic and was asked
# "Are you sure?" three times. The runs are part of this package. From them we want to know
# whether asking again helps, by how much at best, and how sure we can be.

# %%
import os
from importlib.resources import files
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.evaluate.summary import proportion
from msjax.posterior.analysis import criticise, observed_accuracy
from msjax.posterior.fit import fit
from msjax.posterior.models import find_model
from msjax.posterior.quantities import estimate
from msjax.report.figures import style

# %matplotlib inline
plt.rcParams.update(style.SETTINGS)
PILOT = Path(str(files("msjax") / "recorded" / "pilot.jsonl"))
MODELS = ("pooled",) if "MSJAX_SMALL" in os.environ else ("pooled", "heterogeneous")

# %% [markdown]
# ## What was recorded
#
# One line per question: every answer, whether it was right, what it cost.

# %%
run = read_runs(PILOT)[-1]
print(run.question, "=", run.gold)
for answer, right, usage in zip(run.answers, run.correct, run.tokens, strict=True):
    print(f"  {answer!s:>8}  {'right' if right else 'wrong'}  {usage.uncached} tokens")

# %%
count = next(c for c in Runs.from_files([PILOT]).groups if c.benchmark == "arithmetic-hard")
print("accuracy per round:", np.round(observed_accuracy(count), 3), "of", len(count.correct))

# %% [markdown]
# ## From runs to a posterior
#
# The three probabilities are not known; what is known is how often answers were repaired and
# broken. Bayes' theorem turns those counts into a distribution of the three numbers, and
# everything else (the curve, its limit, the bounds) follows from draws of it. Two models are
# compared: one chain for all questions, and chains that differ from question to question.

# %%
found = {}
for name in MODELS:
    fitted = fit(count, find_model(name), jax.random.key(0))
    found[name] = criticise(fitted, jax.random.key(1), value=1.0, price=1e-4)
    quantities = found[name].quantities
    print(f"{name}:")
    for label, draws in (
        ("accuracy after 3 revisions", quantities.bounds.neutral[:, 3]),
        ("limit", quantities.limit.neutral),
        ("upper bound", quantities.limit.upper),
        ("lower bound", quantities.limit.lower),
    ):
        number = estimate(draws)
        interval = f"[{number.low:.3f}, {number.high:.3f}]"
        print(f"  {label}: {number.median:.3f}, 90 % interval {interval}")
    print(f"  P(the first revision helps) = {quantities.first_round_helps.mean():.3f}")

# %% [markdown]
# ## What speaks against it
#
# No number without the assumptions it rests on. Each check puts one assumption to the test; what
# the runs contradict is said before any result.

# %%
for check in found["pooled"].checks:
    print(f"{check.name}: {check.sentence}")
for warning in found["pooled"].warnings:
    print("warning:", warning)

# %% [markdown]
# ## The picture

# %%
size = (4.4 * len(found), 3.3)
figure, axes = plt.subplots(1, len(found), figsize=size, sharey=True, squeeze=False)
for axis, (name, analysis) in zip(axes[0], found.items(), strict=True):
    curve = analysis.quantities.bounds.neutral
    low, middle, high = np.quantile(curve, [0.05, 0.5, 0.95], axis=0)
    rounds = np.arange(curve.shape[1])
    axis.fill_between(rounds, low, high, alpha=0.25)
    axis.plot(rounds, middle, label="posterior, 90 % band")
    limit = analysis.quantities.limit
    named = {"lower": limit.lower, "limit": limit.neutral, "upper": limit.upper}
    for place, (bound, draws) in enumerate(named.items(), len(rounds)):
        number = estimate(draws)
        error = [[number.median - number.low], [number.high - number.median]]
        axis.errorbar([place], [number.median], error, fmt="s", color="C1", capsize=3)
        axis.text(place, number.high + 0.01, bound, rotation=90, ha="center", va="bottom")
    seen = [proportion(right, len(count.correct)) for right in (count.correct == 1).sum(axis=0)]
    middle = [one.estimate for one in seen]
    error = [[one.estimate - one.low for one in seen], [one.high - one.estimate for one in seen]]
    observed = f"observed, n = {len(count.correct)}"
    axis.errorbar(range(len(seen)), middle, error, fmt="ko", capsize=3, label=observed)
    axis.set(xlabel="revisions", ylabel="accuracy", title=name, ylim=(0, 0.7))
    axis.legend()
plt.show()

# %% [markdown]
# The bars at the right are 90 % intervals: 40 questions say that asking again hardly changes
# anything here, and they leave room for more than the middle values suggest. `msjax fit` does all
# of this in one command and chooses the model by how well it predicts; `msjax plan` says how many
# more questions would settle it.
