"""Training: on votes at test time (ttrl), and of priors from question features (priors)."""

from msjax.errors import require_extra

require_extra("train", "flax", "optax", "orbax", "safetensors")
