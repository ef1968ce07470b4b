"""How many GPUs or cores a load takes, by arithmetic."""
