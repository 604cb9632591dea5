"""Which proxy stands between a client and its server: none where that is this machine."""

import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies

# In gRPC's order, which knows them in small letters alone.
_OF_GRPC = ("grpc_proxy", "https_proxy", "http_proxy")
_BYPASS_OF_GRPC = "no_grpc_proxy"


def rest_proxy(url: str) -> str | None:
    """Returns the proxy that the environment names for a URL; None without one."""
    if _is_this_machine(urlsplit(url).hostname):
        return None
    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    return proxy


def grpc_proxy(address: str) -> str | None:
    """Returns the proxy that the environment names for HOST:PORT; None without one."""
    url = f"http://{address.removeprefix('dns:').lstrip('/')}"
    if address.startswith("unix:") or _is_this_machine(urlsplit(url).hostname):
        return None
    if should_bypass_proxies(url, no_proxy=os.environ.get(_BYPASS_OF_GRPC)):
        return None
    return next(filter(None, map(os.environ.get, _OF_GRPC)), None)


def without_password(proxy: str) -> str:
    """Returns what may be shown of a proxy's URL."""
    return re.sub(r"^(\w+://)?.*@", r"\1", proxy)


def _is_this_machine(host: str | None) -> bool:
    name = (host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
