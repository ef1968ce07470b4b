"""Tests on a real server of a real model; `make test-llm` runs them."""
