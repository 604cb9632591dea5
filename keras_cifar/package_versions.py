"""The versions that decide whether something can be done again to the bit."""

import platform
from importlib.metadata import version

_PACKAGES = ("tensorflow", "keras", "numpy", "keras-cifar")


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
