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
# A small model, Qwen2.5-Coder-0.5B-Instruct, answered 64 questions of GSM8K (word problems of
# school) and was asked three times to solve each anew, shown its answer before. The runs are part
# of this package. From them we want to know whether asking again helps, by how much at best, and
# how sure we can be.

# %%
import matplotlib.pyplot as plt
import numpy as np

import msjax
from msjax.evaluate.summary import proportion
from msjax.posterior.words import observed_accuracy
from msjax.report.figures import style

# %matplotlib inline
plt.rcParams.update(style.SETTINGS)
study = msjax.datasets.load("study", "restart")
count = next(runs for runs in study.groups if runs.models[0] == "Qwen2.5-Coder-0.5B-Instruct")

# %% [markdown]
# ## What was recorded
#
# One line per question: every answer, whether it was right, what it cost. Some questions are
# repaired and broken again:

# %%
moved = (np.diff(count.correct.astype(int), axis=1) != 0).sum(axis=1)
run = count.records[int(moved.argmax())]
print("question", run.question_id, "of GSM8K")
for answer, right, usage in zip(run.answers, run.correct, run.tokens, strict=True):
    print(f"  {answer!s:>8}  {'right' if right else 'wrong'}  {usage.uncached} tokens")

# %%
print("accuracy per round:", np.round(observed_accuracy(count), 3), "of", len(count.correct))

# %% [markdown]
# ## From runs to a posterior
#
# The three probabilities are not known; what is known is how often answers were repaired and
# broken. Bayes' theorem turns those counts into a distribution of the three numbers, and
# everything else (the curve, its limit, the bounds) follows from draws of it. One chain for all
# questions is one model of the runs among several; `fit` averages over them, each by its
# probability given the runs.

# %%
found = {name: msjax.fit(count, model=name) for name in ("pooled", "auto")}
for name, post in found.items():
    print(f"{name}:")
    print("  accuracy after 3 revisions:", post.accuracy[3])
    print("  limit:", post.limit)
    print("  upper bound:", post.upper)
    print("  lower bound:", post.lower)
    print(f"  P(the first revision helps) = {post.first_round_helps:.3f}")

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
for axis, (name, post) in zip(axes[0], found.items(), strict=True):
    curve = post.accuracy.interval()
    rounds = np.arange(len(curve))
    axis.fill_between(rounds, [x.low for x in curve], [x.high for x in curve], alpha=0.25)
    axis.plot(rounds, [x.estimate for x in curve], label="posterior, 90 % band")
    named = {"lower": post.lower, "limit": post.limit, "upper": post.upper}
    for place, (bound, quantity) in enumerate(named.items(), len(rounds)):
        number = quantity.interval()
        error = [[number.estimate - number.low], [number.high - number.estimate]]
        axis.errorbar([place], [number.estimate], error, fmt="s", color="C1", capsize=3)
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
# ## What to do
#
# The page of decisions compares every policy that these runs can judge, on the same questions, and
# assumes no chain at all.

# %%
print(msjax.decide(count))

# %% [markdown]
# The bars in the picture are 90 % intervals: about as many answers are repaired as broken, so that
# asking again gains little here, and 64 questions leave room for more than the middle values
# suggest. `msjax fit` does all of this in one command; `msjax plan` says how many more questions
# would settle it.
