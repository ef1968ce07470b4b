"""The measured systems: what each is called, what it needs, and how it is started and asked."""
