"""Contract suites that are shipped: a driver's or a channel's tests subclass them, inside this project and outside."""

import pytest

# Without this, pytest shows a bare AssertionError for what fails in a module that is not a test file.
pytest.register_assert_rewrite("lab.testing.hypervisor", "lab.testing.hypervisor_capabilities", "lab.testing.channel")
