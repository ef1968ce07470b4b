"""What outlives a call: conversations, budgets and answers, all in Redis."""
