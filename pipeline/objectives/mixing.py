"""Which objectives a step trains: drawn by key, so that all ranks and every resumed run agree.

An objective that a step leaves out gets an infinite denominator. All heads are computed all the
same, in fixed order, as ZeRO stage 3 needs it, and what nothing trains gets gradients of exactly
zero. Had it none, ZeRO would take zeros at stages 1 and 2, and at stage 3 the last ones again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.objectives.base import Objective
from preprocessing.draws import purpose_key, uniform


def trained_in(seed: int, step: int, objectives: Mapping[str, Objective]) -> Bool[Tensor, " names"]:
    """Whether each objective is trained in a step, in the order given.

    The draws of an objective depend on its name, not on the others.
    """
    keys = np.array([purpose_key(seed, f"train {name}", step) for name in objectives])
    probabilities = [objective.probability for objective in objectives.values()]
    return torch.from_numpy(uniform(keys, 0, draw=0) < probabilities)


def denominators(
    counts: Float[Tensor, " objectives"], trained: Bool[Tensor, " objectives"]
) -> Float[Tensor, " objectives"]:
    """A step's target counts, infinite where an objective is not trained in it.

    counts [120, 16], trained [True, False] -> [120, inf]
    """
    return counts.masked_fill(~trained.to(counts.device, non_blocking=True), math.inf)
