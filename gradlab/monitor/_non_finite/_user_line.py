"""The line of user code that called an operator."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig

import torch


def user_line() -> tuple[str, str]:
    """The innermost line inside of a replay that is not torch's, gradlab's or Python's.

    Returns:
        `path:line` and what the line says; empty if there is none.
    """
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path == _REPLAY:
            break
        if path not in _skip:
            _skip[path] = _is_theirs(path)
        if not _skip[path]:
            code = linecache.getline(path, frame.f_lineno, frame.f_globals).strip()
            return f"{_short(path)}:{frame.f_lineno}", code
        frame = frame.f_back
    return "", ""


def _short(path: str) -> str:
    if not os.path.isabs(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def _is_theirs(path: str) -> bool:
    if path.startswith(("<frozen", "<eval_with_key>", _TORCH, _GRADLAB)):
        return True
    return path.startswith(_PYTHON) and "site-packages" not in path


def _folder(path: str) -> str:
    return os.path.join(path, "")


_HERE = os.path.dirname(os.path.abspath(__file__))
_REPLAY = os.path.join(_HERE, "_replay.py")
_GRADLAB = _folder(os.path.dirname(os.path.dirname(_HERE)))
_TORCH = _folder(os.path.dirname(os.path.abspath(torch.__file__)))
_PYTHON = _folder(sysconfig.get_path("stdlib"))
_skip: dict[str, bool] = {}
