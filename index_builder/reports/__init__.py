"""Reports of builds, as data and as HTML."""
