"""Reading archives in a child that can be killed, and writing trees."""
