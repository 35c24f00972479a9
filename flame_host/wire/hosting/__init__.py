"""The host as the application process of a Flame cluster: the service and its dialects."""
