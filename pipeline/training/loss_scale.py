"""The scale of an fp16 loss, by DeepSpeed's rule: what the local engine uses in its place."""

from __future__ import annotations

from pipeline.sections import Fp16Config


class LossScale:
    """A factor of the loss that keeps small gradients from vanishing in fp16.

    It is doubled after every ``scale_window`` steps since the last overflow, and halved by the
    ``hysteresis``-th overflow and each further one; a doubling starts their count anew. As in
    DeepSpeed, the first step and the one after an overflow are not among the window's.

    Attributes:
        value: the factor.
    """

    def __init__(self, settings: Fp16Config) -> None:
        self._settings = settings
        self.value = float(2**settings.initial_scale_power)
        self._steps = 0
        self._overflows = 0

    @property
    def may_fall(self) -> bool:
        """Whether it is above the smallest there may be."""
        return self.value > self._settings.minimum_scale

    def update(self, overflow: bool) -> None:
        """Take note of a step."""
        settings = self._settings
        if overflow:
            self._overflows += 1
            self._steps = 0
            if self._overflows >= settings.hysteresis:
                self.value = max(self.value / 2, float(settings.minimum_scale))
            return
        if self._steps and self._steps % settings.scale_window == 0:
            self.value *= 2
            self._overflows = 0
        self._steps += 1

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"value": self.value, "steps": self._steps, "overflows": self._overflows}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint's."""
        self.value = state["value"]
        self._steps, self._overflows = int(state["steps"]), int(state["overflows"])
