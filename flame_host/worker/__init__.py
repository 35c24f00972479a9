"""Worker processes: what runs in the application's interpreter, and how the host starts, asks and ends it."""
