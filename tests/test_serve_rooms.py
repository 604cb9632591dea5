"""The rooms of the server: a request goes down through them, and nothing calls back up."""

import ast
from pathlib import Path

import keras_cifar.serve

SERVE = Path(keras_cifar.serve.__file__).parent
# A room may import what stands below it, and itself.
ROOMS = (
    ("lifecycle",),
    ("watch", "logs", "tf_serving"),
    ("rest", "rpc"),
    ("page", "text_config"),
    ("models",),
    ("access_log", "memory"),
    ("prometheus", "serving_error", "settings"),
)


def room_number(name):
    return next(number for number, room in enumerate(ROOMS) if name in room)


def imports():
    """Every (importing room, imported room) of the server."""
    for path in sorted(SERVE.rglob("*.py")):
        room = path.relative_to(SERVE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "keras_cifar.serve."
            ):
                yield room, node.module.split(".")[2]


def test_imports_point_downwards():
    arrows = {(room, target) for room, target in imports() if room not in ("__init__", target)}
    assert ("rest", "models") in arrows
    assert not [arrow for arrow in arrows if room_number(arrow[0]) >= room_number(arrow[1])]
