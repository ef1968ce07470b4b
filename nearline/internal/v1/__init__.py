"""Generated from proto/nearline/internal/v1 by `make proto`; never edited."""
