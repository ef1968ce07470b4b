"""The text of documents that are pages of letters at places: columns, headings, tables."""
