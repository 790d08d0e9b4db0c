"""Properties are tried with the same examples everywhere, and how long one takes is the machine's affair.

Files with tests that need minutes come first, so that no processor waits at the end for the last of them.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# By default an example that takes 0.2 s fails, and a busy machine takes that for nothing. New examples are looked for
# with `--hypothesis-profile=default`, by hand: a build that fails today must fail tomorrow as well.
settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    long = {item.path for item in items if item.get_closest_marker("minutes")}
    items.sort(key=lambda item: item.path not in long)
