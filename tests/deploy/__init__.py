"""Tests of how Nearline is deployed."""
