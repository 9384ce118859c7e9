"""What an environment costs a month, from its templates and a file of prices."""

from operations.cost.estimate import Estimate, monthly

__all__ = ["Estimate", "monthly"]
