"""Tests with a real server and a real model; `make test-llm` runs them."""
