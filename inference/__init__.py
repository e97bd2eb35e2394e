"""Inference: from recorded runs to a posterior over p0, p_ic and p_ci, and what follows from it.

`counts` reads runs, `models` holds the model and its exact posterior, `fit` samples, verifies and
checks the assumptions (`checks`), `push_forward` carries draws through any function of a chain, and
`store` saves and loads. Nothing is re-exported here, so that loading a posterior stays quick.
"""
