"""From `package.module:name` or `file.py:name` to the object that is meant by it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


class UsageError(Exception):
    """A mistake on the command line; the message is all that the user sees."""


def named(text: str) -> Any:
    """Imports what a name stands for; the current directory is importable.

    Args:
        text: `package.module`, `file.py`, or one of them and `:name.of.attribute`.

    Returns:
        The module, or the attribute of it.

    Raises:
        UsageError: When there is no such thing; with the nearest name that there is.
    """
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    source, _, path = text.partition(":")
    found: Any = _file(Path(source)) if source.endswith(".py") else _module(source)
    owner = source
    for name in path.split(".") if path else ():
        try:
            found = getattr(found, name)
        except AttributeError:
            guess = guessed(name, _names(found, like=name))
            raise UsageError(f"there is no {name!r} in {owner}{guess}") from None
        owner = f"{owner}{':' if owner == source else '.'}{name}"
    return found


def guessed(name: str, names: Iterable[str]) -> str:
    """The nearest names as a question, or nothing.

    Args:
        name: What was given.
        names: What there is.
    """
    there = list(names)
    lower = {other.lower(): other for other in there}
    close = difflib.get_close_matches(name, there, n=2)
    close += [lower[c] for c in difflib.get_close_matches(name.lower(), lower, n=2)]
    best = list(dict.fromkeys(close))[:2]
    return f". Did you mean {' or '.join(best)}?" if best else ""


def _module(name: str) -> ModuleType:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            f"{name!r} is neither an importable name, as package.module is, nor a file"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from None
        raise UsageError(_missing(name, error.name)) from None
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from None


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}"
            + guessed(path.name, (p.name for p in path.parent.glob("*.py")))
        )
    name = path.stem if path.stem not in sys.modules else f"_gradlab_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _broken(str(path), error) from None
    return module


def _missing(name: str, missing: str) -> str:
    """What to say about a module of which the part `missing` is not there."""
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent)
    if package is not None and hasattr(package, last):
        return f"{missing} is no module: name it as {parent}:{name[len(parent) + 1 :]}"
    if package is None:
        siblings = {m.name for m in pkgutil.iter_modules([os.getcwd()])}
        siblings |= {m.partition(".")[0] for m in sys.modules}
        where = f" in {os.getcwd()} or among what is installed"
    else:
        inside = pkgutil.iter_modules(getattr(package, "__path__", []))
        siblings = {f"{parent}.{m.name}" for m in inside}
        where = ""
    return f"there is no module {missing}{where}{guessed(missing, siblings)}"


def _broken(name: str, error: BaseException) -> UsageError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = f"{Path(frame.filename).name}:{frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        line = f"{Path(error.filename).name}:{error.lineno}"
    what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return UsageError(f"importing {name} raises {what} ({line})")


def _names(owner: Any, like: str) -> list[str]:
    private = like.startswith("_")
    return [name for name in dir(owner) if private or not name.startswith("_")]
