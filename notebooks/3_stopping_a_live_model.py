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
# # 3. Stopping a live model
#
# A stopping rule looks at the answers so far, without knowing which are right, and says whether
# to ask again. Here one learns from a pilot and then stands in front of a real model: SmolLM2
# with 135 million parameters, in Flax, on this machine. (`msjax weights` obtains it once.)

# %%
import os
from importlib.resources import files
from pathlib import Path

import msjax
from msjax.evaluate.paired import compare
from msjax.llm.flax import weights
from msjax.llm.live import cut_by, rule_from_pilot

SMALL = "MSJAX_SMALL" in os.environ
BENCHMARK = "arithmetic-medium"
QUESTIONS = 4 if SMALL else 24

# %% [markdown]
# ## A rule from a pilot
#
# The pilot is recorded: 40 questions, three revisions each, labels known. The rule
# `belief` learns from it how likely an answer is right that has just changed, or stayed,
# and stops when another revision is not worth its tokens.

# %%
recorded = msjax.read(Path(str(files("msjax") / "recorded" / "pilot.jsonl")))
(pilot,) = (runs for runs in recorded.groups if runs.benchmark == BENCHMARK)
learnt = rule_from_pilot("belief", pilot.records, rounds=3, value=1.0, price=1e-4)
print(learnt.says)

# %% [markdown]
# ## Fresh questions, all rounds
#
# To see what the rule is worth, fresh questions are first run for all rounds.

# %%
engine = msjax.FlaxEngine.load(
    weights.ensure(), batch_size=QUESTIONS, max_new_tokens=16, temperature=0.7
)
task = msjax.find_task(BENCHMARK)
full = msjax.run(task, engine, rounds=3, questions=QUESTIONS, start=100).records
print(f"{QUESTIONS} questions, {sum(u.uncached for run in full for u in run.tokens):,} tokens")

# %% [markdown]
# ## What the rule would have done
#
# The same rule object runs over the recorded answers. Differences are taken question by question,
# and every one comes with a 90 % interval.

# %%
shadow = cut_by(learnt.rule, full)
for one in compare(shadow, full, 3):
    gain, saved = one.accuracy_gain, one.tokens_saved
    print(
        f"against {one.k} revision{'s' * (one.k != 1)}: accuracy {gain.estimate:+.2f} "
        f"[{gain.low:+.2f}, {gain.high:+.2f}], "
        f"tokens saved per question {saved.estimate:.0f} [{saved.low:.0f}, {saved.high:.0f}]"
    )

# %% [markdown]
# ## In front of the model
#
# Now it decides while the model answers. Each question is sampled with a random key of its own,
# so the answers are those of the recording, up to where the rule stopped.

# %%
live = msjax.run(task, engine, rule=learnt.rule, rounds=3, questions=QUESTIONS, start=100).records
for one, other in zip(live, shadow, strict=True):
    assert one.answers == other.answers
print("revisions asked for:", [run.revisions for run in live])
print(
    f"right: {sum(run.right for run in live)} of {len(live)} with the rule, "
    f"{sum(run.correct[0] for run in full)} first answers, {sum(run.correct[-1] for run in full)} "
    "after all revisions"
)

# %% [markdown]
# ## Other models
#
# Whether asking again pays is a matter of the model and of how it is asked. Larger models were
# recorded for this project on harder questions; what is recorded so far comes with it. A few
# questions decide nothing, and the sentences say so.

# %%
study = msjax.datasets.load("study", strategy="reconsider")
for decision in msjax.decide(study, baseline="all").decisions:
    best = decision.use.name
    print(f"{decision.name}: {len(decision.outcomes.right)} questions, {best}, {decision.verdict}")

# %% [markdown]
# On the command line this is `msjax run RUNS.jsonl --rule belief --pilot
# PILOT.jsonl`, and with `--server URL` the same rule stands in front of vLLM. `--shadow` runs all
# rounds and only logs what the rule would have done, which is how to begin.
