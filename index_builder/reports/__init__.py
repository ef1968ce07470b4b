"""Reports about a build, as text and HTML."""
