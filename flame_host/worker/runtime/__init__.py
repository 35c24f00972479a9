"""What runs in the application's interpreter: the standard library only, Python 3.8 syntax."""
