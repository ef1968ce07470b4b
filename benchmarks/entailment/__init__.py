"""Pairs of sources and statements, made by rule, from which the shipped judge is learned."""
