"""What a config parser's complaint means: one sentence, with the nearest right name."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from pydoc import locate

from pytorch_lightning import Trainer

import experiments

_SECTIONS = ("seed_everything", "num_threads", "trainer", "model", "data")
_KEYS = ("config", *_SECTIONS, "ckpt_path")
_PACKAGES = ("experiments", "gradlab.layers", "gradlab.optim", "gradlab.callbacks")
_NOISE = re.compile(
    r"Parser key|Does not validate against any|Subtypes: |Errors:$|Given value|"
    r"Expected a <class 'NoneType'>|Expected a path but |Problem with given class_path|"
    r"Subclass types expect one of|a (class path|dict) "
)


def explain(complaint: str) -> str:
    """Turns jsonargparse's complaint into one sentence: what must hold, got, do.

    Args:
        complaint: jsonargparse's message, often a dozen lines of nested attempts.

    Returns:
        The one thing that is wrong, where, and the nearest name that would be right.
        What is not recognised is passed on, less the lines that say nothing.

    Example:
        >>> explain("Subcommand 'fit' does not accept option 'trainer.max_epohs'")
        "trainer.max_epohs is not an option. Did you mean 'trainer.max_epochs'?"
    """
    where = ".".join(re.findall(r'Parser key "([^"]+)"', complaint))
    for pattern, sentence in _RULES.items():
        if found := re.search(pattern, complaint):
            complaint = sentence(found)
            break
    else:
        complaint = _without_noise(complaint)
    return f"{where}: {complaint}" if where else complaint


def _unknown_option(found: re.Match[str]) -> str:
    """The class that refuses it is named after it on the same line, else before it."""
    before, after = found.string[: found.start()], found.string[found.end() :]
    owners = re.findall(r"^.*class_path='([^']+)'", after.split("\n")[0])
    owners = owners or re.findall(r"given class_path '([^']+)'", before)
    owner = locate(owners[-1]) if owners else None
    if not callable(owner):
        return f"{found[1]!r} is not an option."
    given = {"self", "params"}  # params: an optimizer gets them from the model
    names = [name for name in inspect.signature(owner).parameters if name not in given]
    return (
        f"{found[1]!r} is not an option of {owners[-1]}.{_guess(found[1], names)} "
        f"It takes {', '.join(names)}."
    )


def _unknown_key(found: re.Match[str]) -> str:
    trainer = (f"trainer.{name}" for name in inspect.signature(Trainer).parameters)
    return f"{found[1]} is not an option.{_guess(found[1], (*_KEYS, *trainer))}"


def _unknown_name(found: re.Match[str]) -> str:
    module, name = found[1], found[2]
    return f"there is no {module}.{name}.{_guess(name, dir(locate(module)), module)}"


def _unknown_class(found: re.Match[str]) -> str:
    guess = _guess(found[1], dir(experiments), "experiments")
    return f"{found[1]!r} is no import path, as experiments.Digits is one.{guess}"


def _no_config(found: re.Match[str]) -> str:
    given = Path(found[1])
    names = [path.name for path in Path("configs").glob("*.yaml")]
    return f"there is no file {given}.{_guess(given.name, names, 'configs', '/')}"


_RULES: dict[str, Callable[[re.Match[str]], str]] = {
    r"Option '([^']+)' is not accepted": _unknown_option,
    r"does not accept option '([^']+)'": _unknown_key,
    r"unrecognized arguments: (?:--)?([^\s=]+)": _unknown_key,
    r"module '([^']+)' has no attribute '([^']+)'": _unknown_name,
    r"No module named '([^']+)'": lambda found: (
        f"there is no module {found[1]}.{_guess(found[1], _PACKAGES)}"
    ),
    r"Expected a dot import path string: (\S+)": _unknown_class,
    r"(?:File does not exist|Path is not a file): '([^']+)'": _no_config,
    r"required: (?:fit|validate)\.model$": lambda _: (
        "a model and data are required. Give a config: -c configs/<study>.yaml"
    ),
    r"Unexpected config: (.*)": lambda found: (
        f"a config must be a mapping with the keys {', '.join(_SECTIONS)}; "
        f"got {found[1] or 'nothing'}."
    ),
}


def _without_noise(complaint: str) -> str:
    lines = (line.strip(" -") for line in complaint.splitlines())
    kept = "; ".join(line for line in lines if line and not _NOISE.match(line))
    kept = re.sub(r"<class '([^']+)'>", r"\1", kept)
    given = re.search(r"^\s*Given value: (.{1,60})$", complaint, re.MULTILINE)
    return f"{kept}; got {given[1]}" if given else kept


def _guess(name: str, names: Iterable[str], prefix: str = "", joint: str = ".") -> str:
    names = list(names)
    # relU is more likely to be the class ReLU than the function relu.
    classes = [n for n in names if n.lower() == name.lower() and n[:1].isupper()]
    close = classes[:1] or difflib.get_close_matches(name, names, n=1)
    whole = [f"{prefix}{joint}{match}" if prefix else match for match in close]
    return f" Did you mean {whole[0]!r}?" if whole else ""
