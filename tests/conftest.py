"""What pytest loads before any test: the fixtures of `tests/support/fixtures.py`."""

pytest_plugins = ("tests.support.fixtures",)
