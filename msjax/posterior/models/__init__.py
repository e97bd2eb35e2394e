"""The models of recorded runs; `model.py` says what each offers, `CANDIDATES` what `auto` tries."""

from collections.abc import Mapping, Sequence
from typing import Any

from msjax._io import load_named
from msjax.errors import InputError
from msjax.posterior.models.chains import Heterogeneous, MoverStayer, MoverStayerBeta, Pooled
from msjax.posterior.models.homogeneous import Drifting, DriftingMoverStayer, SecondOrder
from msjax.posterior.models.label_free import LabelFree
from msjax.posterior.models.logit_normal import LogitNormal
from msjax.posterior.models.model import Model
from msjax.posterior.models.noisy import Noisy
from msjax.posterior.models.repeated import Repeated

__all__ = ["CANDIDATES", "MODELS", "Model", "find_model", "with_priors"]

CANDIDATES: tuple[Model, ...] = (
    Pooled(),
    Heterogeneous(),
    MoverStayer(),
    MoverStayerBeta(),
    Drifting(),
    DriftingMoverStayer(),
    SecondOrder(),
)
"""The models that `auto` compares, from few parameters to many."""

MODELS: dict[str, Model] = {
    model.name: model for model in (*CANDIDATES, LogitNormal(), Repeated(), Noisy(), LabelFree())
}
"""Every model of one benchmark's runs, by name."""


def find_model(name: str) -> Model:
    """The model of that name, or the one that "module:Class" names.

    Raises InputError, naming those there are, when there is none.
    """
    if ":" in name:
        found = load_named(name, "model")
        found = found() if isinstance(found, type) and issubclass(found, Model) else found
        if not isinstance(found, Model):
            raise InputError(
                f"model is {name!r}, which is no msjax.posterior.models.Model; name one"
            )
        return found
    if name not in MODELS:
        raise InputError(f"model is {name!r}; choose from {', '.join(MODELS)}, or module:Class")
    return MODELS[name]


def with_priors(models: Sequence[Model], priors: Mapping[str, Any]) -> tuple[Model, ...]:
    """The models with other priors of the parameters that each has.

    Raises InputError for a parameter that none of them has, or a prior that does not fit.
    """
    known = dict.fromkeys(name for model in models for name in model.distributions)
    for name in priors:
        if name not in known:
            raise InputError(
                f"priors has {name}, which no model to be fitted has; choose from "
                f"{', '.join(known)}"
            )
    return tuple(
        model.with_priors({x: p for x, p in priors.items() if x in model.distributions})
        for model in models
    )
