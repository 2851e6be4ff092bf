"""Raw files to documents: which files, how they are opened, what marks a record."""
