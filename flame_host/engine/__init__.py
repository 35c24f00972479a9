"""Our own engines: ``local`` on worker processes of this machine, ``inline`` in this process."""
