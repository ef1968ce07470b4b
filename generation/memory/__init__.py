"""State that outlives a call: conversations, token budgets and cached answers, all in Redis."""
