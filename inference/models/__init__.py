"""The models of recorded runs; `model.py` says what each offers, `CANDIDATES` what `auto` tries."""

from inference.models.chains import Heterogeneous, MoverStayer, MoverStayerBeta, Pooled
from inference.models.homogeneous import Drifting, DriftingMoverStayer, SecondOrder
from inference.models.label_free import LabelFree
from inference.models.logit_normal import LogitNormal
from inference.models.model import Model
from inference.models.noisy import Noisy
from msjax.errors import InputError

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
    model.name: model for model in (*CANDIDATES, LogitNormal(), Noisy(), LabelFree())
}
"""Every model of one benchmark's runs, by name."""


def find_model(name: str) -> Model:
    """The model of that name; raises InputError, naming those there are, when there is none."""
    if name not in MODELS:
        raise InputError(f"model is {name!r}; choose from {', '.join(MODELS)}")
    return MODELS[name]
