"""Protocols and records that all parts of the generation service share."""
