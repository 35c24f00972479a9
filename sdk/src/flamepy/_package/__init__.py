"""The project as a package: which files, and the archive."""
