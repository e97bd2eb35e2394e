"""The models of recorded runs; `model.py` says what each offers, `CANDIDATES` what `auto` tries."""

from msjax.errors import InputError
from msjax.posterior.models.chains import Heterogeneous, MoverStayer, MoverStayerBeta, Pooled
from msjax.posterior.models.homogeneous import Drifting, DriftingMoverStayer, SecondOrder
from msjax.posterior.models.label_free import LabelFree
from msjax.posterior.models.logit_normal import LogitNormal
from msjax.posterior.models.model import Model
from msjax.posterior.models.noisy import Noisy
from msjax.posterior.models.repeated import Repeated

__all__ = ["CANDIDATES", "MODELS", "find_model"]

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
    """The model of that name; raises InputError, naming those there are, when there is none."""
    if name not in MODELS:
        raise InputError(f"model is {name!r}; choose from {', '.join(MODELS)}")
    return MODELS[name]
