"""Which of several equal servers may be called, and how often a call is repeated on another."""
