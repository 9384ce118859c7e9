"""What an environment costs a month, from its templates and a file of prices."""

from operations.cost.estimate import Estimate, monthly, monthly_usd

__all__ = ["Estimate", "monthly", "monthly_usd"]
