"""Answers from evidence: streamed, cited, and checked before they leave."""
