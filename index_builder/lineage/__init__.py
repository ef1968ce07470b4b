"""The previous snapshot of a build and the live changes since."""
