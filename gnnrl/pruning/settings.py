"""How a plan is applied to a network."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from gnnrl.settings import STUDENT, Count, CountOrNone, Settings, WeightsOrStudent


class PruneSettings(Settings):
    """Which weights are pruned, and what is repaired afterwards."""

    weights: WeightsOrStudent = "final"
    """initial, final, the epoch of a snapshot; student: the search's, trained, not repaired."""
    recalibration_images: CountOrNone = 512
    """Training images for new batch-norm statistics; 0: keep the old ones."""
    compensation: Literal["none", "mean_shift", "gram", "sequential"] = "none"
    """mean_shift, gram: by moments of inputs; sequential: refit layer by layer."""
    calibration_images: Count = 1024
    """Training images, without labels, for the compensation."""

    @model_validator(mode="after")
    def _students_are_not_repaired(self) -> PruneSettings:
        if self.goes_on and self.compensation != "none":
            raise ValueError(
                f"has the weights {STUDENT}, which are trained already, and the compensation "
                f"{self.compensation}: set 'prune.compensation' to none"
            )
        return self

    @property
    def goes_on(self) -> bool:
        """Whether the trained student of the plan is taken as it is."""
        return self.weights == STUDENT

    @property
    def repairs(self) -> bool:
        """Whether anything is repaired."""
        return not self.goes_on and (self.recalibration_images > 0 or self.compensation != "none")

    @property
    def dense_weights(self) -> str:
        """The weights of the dense network that the subnet is compared with."""
        return "final" if self.goes_on else self.weights
