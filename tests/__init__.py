"""The tests; helpers live in `tests.support`, and no test imports a test."""
