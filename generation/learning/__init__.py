"""Learns from labelled questions what `generation.calibration` holds, and measures how well."""
