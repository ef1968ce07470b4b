"""Tests of the records of requests and replies."""
