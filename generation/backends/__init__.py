"""Clients of language models, with circuit breakers, retries and prices."""
