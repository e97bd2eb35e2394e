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
# # 4. In parallel: the best of n, and votes
#
# Instead of revising one answer, one may sample several and pick. Two questions then have exact
# answers: how many samples are needed when a verifier scores them (OptScale), and when a vote is
# decided (OptPO).

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import msjax
from msjax.evaluate.crossfit import evaluate
from msjax.report.figures import style
from msjax.rules import find_rules
from msjax.theory.best_of_n import TruncatedNormal, sample_scores, samples_to_reach
from msjax.theory.voting import error_probability, expected_votes, margin_needed, votes_distribution

# %matplotlib inline
print("msjax", msjax.__version__)
plt.rcParams.update(style.SETTINGS)
DRAWS = 2_000 if "MSJAX_SMALL" in os.environ else 100_000

# %% [markdown]
# ## How many samples until one is good enough?
#
# A verifier scores answers in [0, 1]. If scores follow a normal distribution cut to it, with F
# the chance that one score misses the mark, then n samples all miss it with chance F^n, and n =
# ceil(log(1 - alpha) / log F) samples reach it with probability alpha.

# %%
scores = TruncatedNormal(mu=0.6, sigma=0.2)
for mark in (0.7, 0.8, 0.9, 0.95):
    needed = int(samples_to_reach(scores, mark, 0.9))
    drawn = np.asarray(sample_scores(jax.random.key(0), scores, (DRAWS, needed)))
    reached = (drawn.max(axis=1) >= mark).mean()
    error = np.sqrt(reached * (1 - reached) / DRAWS)
    print(f"score {mark}: {needed} samples reach it with {reached:.3f} +- {error:.3f}, simulated")

# %% [markdown]
# Note the direction: the rarer a good score, the **more** samples. A hard question (low mean) and
# a demanding mark both cost.

# %%
means = np.linspace(0.3, 0.9, 61)
figure, axis = plt.subplots(figsize=(4.8, 3.2))
for number, mark in enumerate((0.8, 0.9, 0.95)):
    needed = samples_to_reach(TruncatedNormal(mu=means, sigma=np.full(61, 0.15)), mark, 0.9)
    axis.semilogy(means, np.asarray(needed), ("-", "--", ":")[number], label=f"score {mark}")
axis.set(xlabel="mean score of the question", ylabel="samples needed", ylim=(1, 1e4))
axis.legend(title="reached with probability 0.9")
plt.show()

# %% [markdown]
# ## When is a vote decided?
#
# Without a verifier, answers vote. If a vote falls on the right answer with probability 0.5 and
# on each of three wrong ones with 1/6, the evidence for the leader against the runner-up grows by
# log 3 with every vote it is ahead. Evidence of 20 to 1 therefore is nothing but a lead of three
# votes.

# %%
p_right, p_wrong = 0.5, 1 / 6
margin = int(margin_needed(20.0, p_right, p_wrong))
print(f"20 to 1 is a lead of {margin} votes")

# %% [markdown]
# What that rule errs and costs is exact too, by recursion over all vote counts. It is compared
# with a fixed number of votes, all of which are paid for.

# %%
chances = np.array([p_right, p_wrong, p_wrong, p_wrong])
random = np.random.default_rng(0)


def majority_errs(votes):
    """Simulated: share of elections that the right answer does not win, ties broken at random."""
    counts = random.multinomial(votes, chances, size=DRAWS) + random.random((DRAWS, 4)) * 0.5
    return (counts.argmax(axis=1) != 0).mean()


figure, axis = plt.subplots(figsize=(4.8, 3.2))
stopped = [(m, votes_distribution(chances, m, 64)) for m in range(1, 6)]
axis.plot(
    [float(expected_votes(one)) for _, one in stopped],
    [float(error_probability(one)) for _, one in stopped],
    "o-",
    label="stop at a lead of 1, 2, ..., 5",
)
fixed = (1, 3, 5, 9, 17, 33)
errors = np.array([majority_errs(n) for n in fixed])
spread = 2 * np.sqrt(errors * (1 - errors) / DRAWS)
axis.errorbar(fixed, errors, spread, fmt="s--", label="a fixed number of votes")
axis.set(xlabel="votes (mean)", ylabel="share of wrong decisions", xscale="log", yscale="log")
axis.legend()
plt.show()

# %% [markdown]
# For the same share of wrong decisions the lead needs fewer votes on average, since easy
# questions are settled at once. `msjax audit` gives such exact numbers for every rule that stops
# a vote, and `msjax replay` compares them on recorded answers.

# %% [markdown]
# ## On a real model
#
# Qwen2.5-Coder-0.5B-Instruct answered 64 questions of GSM8K eight times each; the answers are part
# of this package. Rules see them in random orders, and are judged on questions from which nothing
# about them was learnt.

# %%
(samples,) = msjax.datasets.load("study", "samples").groups
rules = find_rules(samples, ("fixed+majority", "vote_margin", "consol", "asc"))
found = evaluate(samples, rules, jax.random.key(0), orders=20)
print("rule            right                 answers  tokens saved")
for rule in found.rules:
    right, saved = rule.accuracy, rule.saving.estimate
    interval = f"{right.estimate:.2f} [{right.low:.2f}, {right.high:.2f}]"
    print(f"{rule.name:15} {interval:20} {rule.n_used:8.1f} {saved:13.0%}")

# %% [markdown]
# A vote of eight is soon over, so that little is saved; and where a vote is right one time in five,
# few votes are sure.
