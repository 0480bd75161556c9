"""YAML that people write, with bounds: a small file can name a document that fills any memory."""

from typing import Any, Final

import yaml

# Far beyond what a person writes; beyond it, reading would not end, or end in a traceback.
_DEPTH: Final = 40
_ALIASES: Final = 50


def check_yaml(text: str) -> None:
    """Refuse a text that nests too deeply, or repeats itself by aliases too often.

    Raises:
        yaml.YAMLError: it does, or is no YAML.
    """
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        for count, most, what in ((depth, _DEPTH, "levels"), (aliases, _ALIASES, "aliases")):
            if count > most:
                line = event.start_mark.line + 1 if event.start_mark else "?"
                msg = f"more than {most} {what}, line {line}"
                raise yaml.YAMLError(msg)


def load_yaml(text: str) -> Any:
    """The document of a text, by the safe loader, within the bounds.

    Raises:
        yaml.YAMLError: it is no YAML, or beyond them.
    """
    check_yaml(text)
    return yaml.safe_load(text)
