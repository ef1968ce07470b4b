"""Hostile requests and files, and the services that they are sent to."""
