"""Who we are to a server: what its URL says, else what ``~/.netrc`` says of its host."""

from __future__ import annotations

import netrc
import os
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from flame_host.api import StoreError


def credentials_for(url: str) -> tuple[str, httpx.BasicAuth | None]:
    """The URL without user name and password, and those of it or of the netrc file (``NETRC``, else ``~/.netrc``).

    Raises:
        StoreError: the netrc file cannot be read, or others may read it. ValueError: the URL is none.
    """
    parts = urlsplit(url)
    if parts.username is not None:
        bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return bare, httpx.BasicAuth(unquote(parts.username), unquote(parts.password or ""))
    found = _of_host(parts.hostname or "")
    return url, httpx.BasicAuth(*found) if found else None


def _of_host(host: str) -> tuple[str, str] | None:
    file = os.environ.get("NETRC", "") or os.path.expanduser("~/.netrc")
    try:
        status = os.stat(file)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise StoreError(f"others may read or change {file}, so it is not used", hint=f"chmod 600 {file}")
        login, _, password = netrc.netrc(file).authenticators(host) or ("", "", "")
    except FileNotFoundError:
        return None
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        raise StoreError(f"{file} cannot be read: {getattr(error, 'msg', type(error).__name__)}") from None
    return (login or "", password or "") if password else None
