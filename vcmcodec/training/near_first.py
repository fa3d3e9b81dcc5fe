"""How what makes a network's c3 is taught: near first in large steps, then by all that is seen.

What begins far away learns little from what lies far behind it, and what is near is lost in large
steps (decisions/0007).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vcmcodec.training.loop import in_two_parts
from vcmcodec.training.vision_stages import DeepRecipe


@dataclass(frozen=True)
class NearFirstRecipe:
    """Numbers of such a training.

    Attributes:
        steps, batch, side: length; views a step; pixels of a view's side.
        near: share of the steps, the first ones, in which c3 and the stage behind it count alone.
        near_rate: step size in these; it falls to nothing before the others begin.
        rate: step size in the others.
        warm_up, decay: of each part, steps of growth and share of the steps in which it falls.
        lessons: how often a batch is shown, and how many are kept for it.
        weight_decay, clip, ema: of the optimiser, of gradients, of the averaged weights.
    """

    steps: int = 8500
    batch: int = 8
    side: int = 256
    near: float = 0.7
    near_rate: float = 2e-3
    rate: float = 1.5e-4
    warm_up: int = 60
    decay: float = 0.5
    lessons: DeepRecipe = field(default_factory=lambda: DeepRecipe(replays=4, kept=300))
    weight_decay: float = 0.01
    clip: float = 5.0
    ema: float = 0.995

    @property
    def near_steps(self) -> int:
        """Steps of the first part."""
        return round(self.near * self.steps)

    def rate_at(self, step: int) -> float:
        """Step size: growth, level, half a cosine to nothing, in each part."""
        rates = self.near_rate, self.rate
        return in_two_parts(step, self.steps, self.near_steps, rates, self.warm_up, self.decay)
