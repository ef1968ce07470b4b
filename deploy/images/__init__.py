"""Builds the images of the Dockerfile and tests them: `make image`."""
