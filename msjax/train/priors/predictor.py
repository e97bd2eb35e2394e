"""A network that predicts a question's prior from its features: training, saving, use.

It starts as the one prior that fits all training questions best, to which a perceptron learns to
add; validation questions say when to stop, part by part, which may be at once. Features that tell
nothing therefore cost little. docs/training.md says what is learnt and why.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.optimize import minimize

from msjax._io import reading, replacing
from msjax.errors import InputError
from msjax.train.priors.features import FeatureTable
from msjax.train.priors.targets import TARGETS, ChainData, Evidence, Target

__all__ = [
    "FEWEST",
    "Predictor",
    "PriorNetwork",
    "Settings",
    "Split",
    "load",
    "save",
    "split_questions",
    "train",
]

FEWEST = 10
"""Fewest questions of each part."""

_SHARES = (0.6, 0.8)
_VERSION = 1
_LARGEST_LOGIT = 8.0


class _Fixed(nnx.Variable):
    """What belongs to a network but is not trained."""


class PriorNetwork(nnx.Module):
    """constant + perceptron((features - centre) * scale): what a `Target` makes a prior of.

    The last layer starts at zero, so that an untrained network puts out the constant.

    Args:
        features: length of a question's vector.
        outputs: numbers put out.
        hidden: units of the one hidden layer.
    """

    def __init__(self, features: int, outputs: int, hidden: int, *, rngs: nnx.Rngs):
        unit, zeros = nnx.initializers.normal(1.0), nnx.initializers.zeros
        self.centre = _Fixed(jnp.zeros(features))
        self.scale = _Fixed(jnp.ones(features))
        self.constant = _Fixed(jnp.zeros(outputs))
        self.first = nnx.Linear(features, hidden, kernel_init=unit, rngs=rngs)
        self.last = nnx.Linear(hidden, outputs, kernel_init=zeros, rngs=rngs)

    def __call__(self, features: Float[Array, " feature"]) -> Float[Array, " output"]:
        """From the features of one question."""
        x = (features - self.centre[...]) * self.scale[...]
        return self.constant[...] + self.last(nnx.gelu(self.first(x)))


@dataclass(frozen=True)
class Settings:
    """How a network is trained: AdamW until validation questions have not gained for a while."""

    hidden: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch: int = 256
    epochs: int = 1000
    patience: int = 50


class Split(NamedTuple):
    """Indices of the questions of each part."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """Trained networks, and what they may be used for.

    Attributes:
        target: what it predicts.
        networks: for every part of the target the weights that were best for it.
        source: what made the features.
        learnt_from: names of training and validation questions, on which it is not to be judged.
        p0_spread_known: whether questions showed several first answers, without which the
            predicted concentration of p0 means nothing.
        seed: of the split, the first weights and the batches.
        epochs: for every part, passes over the training questions; 0 where features did not help.
    """

    target: Target
    networks: tuple[PriorNetwork, ...]
    source: str
    learnt_from: frozenset[str]
    p0_spread_known: bool
    seed: int
    epochs: tuple[int, ...]

    def outputs(
        self, table: FeatureTable, names: Sequence[str]
    ) -> Float[np.ndarray, "question output"]:
        """What the network puts out for these questions; `target.prior` makes priors of it.

        Raises:
            InputError: features of another source or length than those learnt from, or a question
                without features.
        """
        if table.source != self.source:
            raise InputError(
                f"features come from {table.source!r}, the predictor was trained on "
                f"{self.source!r}; give those, or train another predictor"
            )
        length = self.networks[0].first.in_features
        if table.vectors.shape[1] != length:
            raise InputError(
                f"features have {table.vectors.shape[1]} numbers, the predictor was trained on "
                f"{length}; give those, or train another predictor"
            )
        vectors = table.of(names)
        each = np.stack([_outputs(*_split(network), vectors) for network in self.networks], axis=1)
        owners = np.array(self.target.owners)
        return each[:, owners, np.arange(len(owners))]

    def baseline(self, questions: int) -> Float[np.ndarray, "question output"]:
        """The same without looking at features: one prior for all."""
        constant = np.asarray(self.networks[0].constant[...])
        return np.broadcast_to(constant, (questions, len(constant)))


def split_questions(names: Sequence[str], seed: int) -> Split:
    """Training, validation and test questions (60, 20, 20 %), in the order of a hash of their name.

    The order in which questions are given, and what they showed, make no difference.

    Raises:
        InputError: a part with fewer than `FEWEST` questions.
    """
    digests = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=digests.__getitem__), dtype=int)
    ends = [round(share * len(names)) for share in _SHARES]
    found = Split(*np.split(order, ends))
    for part, chosen in found._asdict().items():
        if len(chosen) < FEWEST:
            raise InputError(
                f"questions: {len(names)} leave {len(chosen)} for {part}, at least {FEWEST} are "
                "needed; record more questions"
            )
    return found


def train(
    target: Target,
    data: Any,
    names: Sequence[str],
    table: FeatureTable,
    *,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Predictor:
    """Learn the priors of questions from their features; the same seed gives the same weights.

    Maximises the mean log evidence of the training questions and keeps, for every part of the
    target, the weights at which that of the validation questions was highest. Test questions are
    not looked at.

    Args:
        target: what to predict.
        data: what the questions showed, of `target.read`.
        names: of the questions.
        table: their features.
        seed: of the split, the first weights and the order of questions.
        settings: of the training.
        progress: told after every epoch its number and the validation loss (nats per question).

    Raises:
        InputError: too few questions, or questions without features.
    """
    split = split_questions(names, seed)
    features = table.of(names)
    evidence = target.evidence(data)
    key, first_key = jax.random.split(jax.random.key(seed))

    def part(chosen: np.ndarray) -> tuple[Any, Any]:
        return jax.tree.map(lambda x: jnp.asarray(x[chosen]), (features, data))

    learn, check = part(split.train), part(split.validation)
    network = PriorNetwork(
        features.shape[1], len(target.owners), settings.hidden, rngs=nnx.Rngs(first_key)
    )
    centre, deviation = (f(features[split.train], axis=0) for f in (np.mean, np.std))
    # A feature that does not vary tells nothing, here and wherever the predictor is used.
    varies = deviation > 1e-5 * np.maximum(np.abs(centre), 1e-5)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0) / np.sqrt(max(varies.sum(), 1))
    network.centre[...], network.scale[...] = jnp.asarray(centre), jnp.asarray(scale)
    network.constant[...] = jnp.asarray(_one_prior(evidence, len(target.owners), learn[1]))

    graphdef, weights, *rest = nnx.split(network, nnx.Param, ...)
    fixed = rest[0]
    rate, decay = settings.learning_rate, settings.weight_decay
    memory = _optimiser(rate, decay).init(weights)
    best = np.asarray(_losses(graphdef, weights, fixed, check, evidence))
    kept, epochs = [weights] * len(best), [0] * len(best)
    for epoch in range(1, settings.epochs + 1):
        weights, memory = _epoch(
            graphdef,
            weights,
            fixed,
            memory,
            learn,
            jax.random.fold_in(key, epoch),
            evidence=evidence,
            batch=settings.batch,
            rate=rate,
            decay=decay,
        )
        losses = np.asarray(_losses(graphdef, weights, fixed, check, evidence))
        progress(epoch, float(losses.sum()))
        for i in np.flatnonzero(losses < best):
            kept[i], epochs[i] = weights, epoch
        best = np.minimum(best, losses)
        if epoch >= max(epochs) + settings.patience:
            break
    learnt_from = frozenset(names[i] for i in (*split.train, *split.validation))
    return Predictor(
        target,
        tuple(nnx.merge(graphdef, one, fixed) for one in kept),
        table.source,
        learnt_from,
        not isinstance(data, ChainData) or bool(((data.yes + data.no)[:, 0] > 1).any()),
        seed,
        tuple(epochs),
    )


def save(path: Path, predictor: Predictor) -> None:
    """One safetensors file: weights, and in its metadata all that `load` needs."""
    config = {
        "version": _VERSION,
        "target": predictor.target.name,
        "source": predictor.source,
        "features": predictor.networks[0].first.in_features,
        "hidden": predictor.networks[0].first.out_features,
        "learnt_from": sorted(predictor.learnt_from),
        "p0_spread_known": predictor.p0_spread_known,
        "seed": predictor.seed,
        "epochs": predictor.epochs,
    }
    tensors = {
        _name(name, where): np.asarray(leaf[...])
        for name, network in zip(predictor.target.parts, predictor.networks, strict=True)
        for where, leaf in nnx.to_flat_state(nnx.state(network))
    }
    config["sha256"] = _digest(config, tensors)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"msjax_predictor": json.dumps(config)})


def load(path: Path) -> Predictor:
    """The predictor that `save` wrote.

    Raises:
        InputError: no such file, a file of something else, or of another version.
    """
    with reading(path, "train one with `msjax train priors fit`"):
        with safe_open(path, framework="numpy") as file:
            config = json.loads((file.metadata() or {})["msjax_predictor"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if config["version"] != _VERSION:
            raise InputError(
                f"{path}: version is {config['version']}, this msjax reads {_VERSION}; train it "
                "again"
            )
        if config["sha256"] != _digest(config, tensors):
            raise ValueError("its content is not what was written")
        target = TARGETS[config["target"]]
        shape = config["features"], len(target.owners), config["hidden"]
        graphdef, state = nnx.split(nnx.eval_shape(lambda: PriorNetwork(*shape, rngs=nnx.Rngs(0))))
        flat = nnx.to_flat_state(state)
        networks = []
        for name in target.parts:
            filled = [
                (at, leaf.replace(jnp.asarray(tensors[_name(name, at)]))) for at, leaf in flat
            ]
            networks.append(nnx.merge(graphdef, nnx.from_flat_state(filled)))
        return Predictor(
            target,
            tuple(networks),
            config["source"],
            frozenset(config["learnt_from"]),
            config["p0_spread_known"],
            config["seed"],
            tuple(config["epochs"]),
        )


def _digest(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """A hash of everything that a file holds."""
    rest = {name: value for name, value in config.items() if name != "sha256"}
    content = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].shape}".encode())
        content.update(np.ascontiguousarray(tensors[name]).tobytes())
    return content.hexdigest()


def _name(part: str, where: tuple[Any, ...]) -> str:
    return ".".join(map(str, (part, *where)))


def _split(network: PriorNetwork) -> tuple[Any, Any]:
    graphdef, state = nnx.split(network)
    return graphdef, state


def _one_prior(evidence: Evidence, outputs: int, data: Any) -> Float[np.ndarray, " output"]:
    """Outputs of the one prior under which what all questions showed is most probable."""

    def loss(constant: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _constant_loss(jnp.asarray(constant, jnp.float32), data, evidence)
        return float(value), np.asarray(slope, float)

    bounds = [(-_LARGEST_LOGIT, _LARGEST_LOGIT)] * outputs
    return minimize(loss, np.zeros(outputs), jac=True, method="L-BFGS-B", bounds=bounds).x


@partial(jax.jit, static_argnums=2)
@partial(jax.value_and_grad)
def _constant_loss(constant: Array, data: Any, evidence: Evidence) -> Array:
    return -jax.vmap(lambda one: evidence(constant, one).sum())(data).mean()


def _optimiser(rate: float, decay: float) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=decay)


@partial(jax.jit, static_argnums=(0, 4))
def _losses(
    graphdef: Any, weights: Any, fixed: Any, some: Any, evidence: Evidence
) -> Float[Array, " part"]:
    """Nats per question, part by part."""
    network = nnx.merge(graphdef, weights, fixed)
    features, data = some
    return -jax.vmap(lambda x, one: evidence(network(x), one))(features, data).mean(axis=0)


@partial(jax.jit, static_argnums=0, static_argnames=("evidence", "batch", "rate", "decay"))
def _epoch(
    graphdef: Any,
    weights: Any,
    fixed: Any,
    memory: Any,
    part: Any,
    key: PRNGKeyArray,
    *,
    evidence: Evidence,
    batch: int,
    rate: float,
    decay: float,
) -> tuple[PyTree[Array], PyTree[Array]]:
    """One pass over the questions in a random order, in batches of about equal size."""
    questions = len(part[0])
    steps = max(1, questions // batch)
    size = questions // steps
    order = jax.random.permutation(key, questions)[: steps * size].reshape(steps, size)

    def step(carry: tuple, chosen: Array) -> tuple[tuple, None]:
        weights, memory = carry
        some = jax.tree.map(lambda x: x[chosen], part)
        slope = jax.grad(lambda w: _losses(graphdef, w, fixed, some, evidence).sum())(weights)
        change, memory = _optimiser(rate, decay).update(slope, memory, weights)
        return (optax.apply_updates(weights, change), memory), None

    return jax.lax.scan(step, (weights, memory), order)[0]


@partial(jax.jit, static_argnums=0)
def _outputs(graphdef: Any, state: Any, features: Array) -> Float[Array, "question output"]:
    return jax.vmap(nnx.merge(graphdef, state))(features)
