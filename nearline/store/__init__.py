"""Where the files of a snapshot store lie: in a local folder, or in an object store."""
