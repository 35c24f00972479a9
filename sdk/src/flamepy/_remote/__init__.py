"""``@remote`` functions and the resources they are for."""
