"""Packages in an S3 bucket: s3://."""
