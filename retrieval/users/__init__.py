"""State of users and sessions in Redis: recent interactions, for recommendation and builds."""
