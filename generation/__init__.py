"""Answers from evidence: streamed, with citations that can be checked."""
