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
# # 1. The theory, checked by simulation
#
# You ask a language model a question. Then you ask it to revise its answer, again and again. Each
# revision may repair a wrong answer, with probability `p_ic` (incorrect to correct), or break a
# right one, with probability `p_ci`. The first answer is right with probability `p0`.
#
# Those three numbers decide everything: whether revising helps, what accuracy it tends to, how
# quickly, and when to stop. This notebook shows the formulas (docs/theory.md, A1 to A6) next to a
# million simulated runs.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import msjax
from msjax.report.figures import style
from msjax.simulation.paths import simulate_counts
from msjax.theory.chain import (
    accuracy_curve,
    optimal_rounds,
    regime,
    rounds_to_within,
    stationary_accuracy,
)
from msjax.theory.population import (
    Population,
    bounds,
    limit_accuracy,
    mean_accuracy_curve,
    pooled_chain,
)

# %matplotlib inline
plt.rcParams.update(style.SETTINGS)
CHAINS = 2**14 if "MSJAX_SMALL" in os.environ else 2**20
ROUNDS = 12

# %% [markdown]
# ## The accuracy after k rounds
#
# With r = 1 - p_ic - p_ci and the limit pi = p_ic / (p_ic + p_ci), the accuracy after k rounds is
# p_k = pi + r^k (p0 - pi). Three models that start at 60 %:

# %%
chains = {
    "helps": msjax.TwoStateChain(0.6, 0.3, 0.1),
    "neutral": msjax.TwoStateChain(0.6, 0.3, 0.2),
    "hurts": msjax.TwoStateChain(0.6, 0.1, 0.2),
}
for name, chain in chains.items():
    print(
        f"{name}: limit {float(stationary_accuracy(chain)):.3f}, within 1 % of it after "
        f"{int(rounds_to_within(chain, 0.01))} rounds, regime {int(regime(chain))}"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for number, (name, chain) in enumerate(chains.items()):
    exact = np.asarray(accuracy_curve(chain, ROUNDS))
    counts = np.asarray(simulate_counts(jax.random.key(number), chain, CHAINS, ROUNDS))
    simulated = counts / CHAINS
    standard_error = np.sqrt(exact * (1 - exact) / CHAINS)
    left.plot(exact, label=name)
    left.plot(simulated, style.MARKERS[number], color=f"C{number}", markersize=4)
    right.plot((simulated - exact) / standard_error, style.MARKERS[number], label=name)
left.set(xlabel="revisions", ylabel="accuracy")
left.legend(title="line: formula, marks: simulation")
right.axhspan(-2, 2, alpha=0.15, color="C0")
right.set(xlabel="revisions", ylabel=f"difference in standard errors (n = {CHAINS:,})")
plt.show()

# %% [markdown]
# The marks lie on the lines, and the differences are what chance allows: about one in twenty lies
# outside the band of two standard errors. (Rounds of one simulation share their runs, so
# neighbours move together.)
#
# ## A criterion that is tempting and wrong
#
# "Revising helps if it repairs more often than it breaks, p_ic > p_ci." Not so: what counts is
# how many answers there are to repair. Here p_ic is twice p_ci, and every revision makes things
# worse.

# %%
good_start = msjax.TwoStateChain(0.9, 0.4, 0.2)
print(np.round(np.asarray(accuracy_curve(good_start, 6)), 3))

# %% [markdown]
# The right criterion is p_ic (1 - p0) > p_ci p0, which is the same as p0 < pi.
#
# ## When to stop
#
# Each round costs tokens. If a right answer is worth 1 and a round costs c, the best number of
# rounds has a closed form. It is compared here with trying every number.

# %%
for cost in (0.001, 0.01, 0.05):
    chain = chains["helps"]
    closed = int(optimal_rounds(chain, 1.0, cost))
    worth = np.asarray(accuracy_curve(chain, 60)) - cost * np.arange(61)
    print(f"cost {cost}: {closed} rounds by formula, {int(worth.argmax())} by trying all")

# %% [markdown]
# ## Questions differ, and that matters
#
# Say half of the questions are within reach and are repaired at once, and the other half never.
# Fit *one* chain to the first round of that benchmark, and it predicts gains for many rounds that
# never come.

# %%
mixed = Population(
    msjax.TwoStateChain(np.array([0.5, 0.1]), np.array([0.9, 0.0]), np.array([0.05, 0.0])),
    np.array([0.5, 0.5]),
)
one = pooled_chain(mixed)
figure, axis = plt.subplots(figsize=(4.6, 3.2))
axis.plot(np.asarray(mean_accuracy_curve(mixed, ROUNDS)), "o-", label="the benchmark")
axis.plot(np.asarray(accuracy_curve(one, ROUNDS)), "s--", label="one chain, from its first round")
axis.set(xlabel="revisions", ylabel="accuracy")
axis.legend()
plt.show()
print(f"limits: {float(limit_accuracy(mixed)):.3f} and {float(stationary_accuracy(one)):.3f}")

# %% [markdown]
# What could be had at best, if one knew which questions gain? Refining exactly those gives the
# upper bound, refining exactly those that lose gives the lower one.

# %%
best = bounds(mixed)
lower, neutral, upper = float(best.lower), float(best.neutral), float(best.upper)
print(f"lower {lower:.3f}, refine everything {neutral:.3f}, upper {upper:.3f}")
assert lower <= neutral <= upper

# %% [markdown]
# `msjax verify` does this for every statement of docs/theory.md, three ways each (formula, exact
# arithmetic, simulation). The next notebook turns to real runs, where the three numbers are not
# known.
