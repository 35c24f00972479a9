"""Packages as tar archives, plain, gzip, bzip2 or xz."""
