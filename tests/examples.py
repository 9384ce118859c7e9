"""How much is tried: by every run of the suite the same, by `make fuzz` other things each time.

FUZZ_FRAMES, FUZZ_REQUESTS  frames and requests of tests/fuzz
FUZZ_FACTOR                 so many times as many examples of every property test
FUZZ_SEED                   what the frames are drawn from; without it any number, which is printed
"""

from __future__ import annotations

import os

import hypothesis

FRAMES = int(os.environ.get("FUZZ_FRAMES", "20000"))
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "500"))
SEED = int(os.environ.get("FUZZ_SEED") or int.from_bytes(os.urandom(4), "little"))
_FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
_EXAMPLES = 100


def register_profiles() -> None:
    """Load `ci`, or the profile that HYPOTHESIS_PROFILE names. To be called before tests are imported."""
    hypothesis.settings.register_profile("ci", derandomize=True, database=None, deadline=None)
    hypothesis.settings.register_profile(
        "fuzz",
        derandomize=False,
        deadline=None,
        max_examples=_EXAMPLES * _FACTOR,
        print_blob=True,  # with which the failing example is tried again
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def examples(count: int) -> hypothesis.settings:
    """The settings of a property test that tries so many examples where others try 100."""
    return hypothesis.settings(max_examples=count * _FACTOR)
