"""Learns calibrations from labelled questions, and evaluates them."""
