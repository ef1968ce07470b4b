"""Generated from proto/nearline/v1 by `make proto`; never edited."""
