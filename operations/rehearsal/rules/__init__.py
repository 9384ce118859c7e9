"""What services validate when a resource is created, and neither the registry's schemas nor a linter know."""

from operations.rehearsal.finding import Rule
from operations.rehearsal.rules import deletion, dependencies, quotas, reserved, sizes, text, values, zones

RULES: tuple[Rule, ...] = (
    *text.RULES,
    *sizes.RULES,
    *(rule._replace(in_account=True) for rule in (*quotas.RULES, *zones.RULES, *deletion.RULES)),
    *reserved.RULES,
    *dependencies.RULES,
    *values.RULES,
)
