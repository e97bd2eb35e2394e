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
# # 5. Your own logs
#
# A log of answers is all that is needed: which question, which round, what the model wrote, what
# would have been right. Here one is made up, with columns that are called as they happen to be
# called in some team's log, so that everything can be run; put your file in its place.

# %%
import csv
import os
import tempfile
from pathlib import Path

import numpy as np

import msjax

SMALL = "MSJAX_SMALL" in os.environ
QUESTIONS = 24 if SMALL else 60
ROUNDS = 3
print("msjax", msjax.__version__)

# %% [markdown]
# ## A log
#
# The model of this log answers sums. Asked again, it repairs a wrong answer now and then, and
# talks itself out of a right one almost as often. One row is one answer.

# %%
random = np.random.default_rng(1)
rows = []
for number in range(QUESTIONS):
    a, b = (int(x) for x in random.integers(10, 90, 2))
    right = random.random() < 0.6
    for turn in range(ROUNDS + 1):
        if turn > 0:
            right = random.random() >= 0.15 if right else random.random() < 0.25
        answer = a + b if right else a + b + int(random.integers(1, 9))
        rows.append(
            {
                "prompt": f"What is {a} + {b}? (item {number})",
                "turn": turn,
                "reply": f"{a} plus {b}: let me see. The answer is \\boxed{{{answer}}}.",
                "expected": a + b,
                "tokens_out": int(random.integers(25, 60)),
            }
        )
log = Path(tempfile.mkdtemp()) / "log.csv"
with log.open("w", newline="") as file:
    table = csv.DictWriter(file, rows[0])
    table.writeheader()
    table.writerows(rows)
print(f"{len(rows)} answers to {QUESTIONS} questions, for instance: {rows[0]}")

# %% [markdown]
# ## Reading and grading
#
# Columns of other names are named. There is no column that says what was right, so replies are
# graded against what was expected, here by a grader of numbers and formulas; `scorer=` takes
# another one, or your own function. Look at what was graded before believing any number.

# %%
runs = msjax.read(
    log,
    columns={
        "question": "prompt",
        "round": "turn",
        "completion": "reply",
        "gold": "expected",
        "tokens": "tokens_out",
    },
    scorer="math",
    benchmark="sums",
    model="ours",
)
for run in runs.records[:3]:
    print(f"{run.gold}: {run.answers} graded {run.correct}")
graded = np.asarray(runs.correct)
print(f"right by round: {', '.join(f'{x:.2f}' for x in graded.mean(axis=0))}")

# %% [markdown]
# ## Deciding
#
# Today every question is asked three times again; so that is the baseline. Every way of stopping
# is compared with it on the same questions, and the intervals pay for having chosen the best.

# %%
card = msjax.decide(runs, baseline="all")
print(card)

# %% [markdown]
# In words, with what to record next: the last sentence says how many more questions would settle
# what these leave open, or that nothing more is needed.

# %%
for label, sentence in card.statements:
    print(f"{label}: {sentence}")

# %% [markdown]
# With prices the decision is about net value: say what a right answer is worth and what a token
# costs in the same unit. The answer may change.

# %%
priced = msjax.decide(runs, baseline="all", worth=0.05, price=2e-6)
print("without prices:", card.decisions[0].use.name)
print("a right answer is worth 5 cents, a million tokens 2 dollars:", priced.decisions[0].use.name)

# %% [markdown]
# ## How often does asking again repair, and break?
#
# The posterior says it with intervals, and says when the model behind it does not fit.

# %%
posterior = msjax.fit(runs, model="pooled")
print(posterior.summary())

# %% [markdown]
# ## Applying it
#
# The policy is a stopping rule, two pure functions, which runs in a program
# (`msjax.run(task, engine, rule=card.rule, ...)`) and in front of clients that cannot be changed:
#
#     msjax import log.csv --columns question=prompt round=turn completion=reply gold=expected \
#         tokens=tokens_out --out runs.jsonl
#     msjax card runs.jsonl
#     msjax serve --upstream URL --rounds 3 --rule card --pilot runs.jsonl
#
# `--shadow RULE` first dry-runs a rule on new questions and logs what it would have saved.
