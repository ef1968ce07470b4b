"""One module per command; `releases` has those that decide which snapshot is served."""
