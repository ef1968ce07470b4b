"""Learns from labelled questions what a calibration holds, and measures how well."""
