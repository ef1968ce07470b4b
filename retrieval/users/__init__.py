"""Users and sessions: what they did last, kept in Redis for recommendations and the next build."""
