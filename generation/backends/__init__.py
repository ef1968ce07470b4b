"""What writes answers: sentences of the evidence, and language models."""
