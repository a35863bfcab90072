"""The simulated translators and their critic as a YAML file that people can change."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pydantic
import yaml

from lira_hf.catalogue.candidates import Critic, Desk
from lira_hf.catalogue.lexicon import Loader


def write_desk(desk: Desk) -> str:
    """`desk` as YAML."""
    plain = asdict(desk)
    plain["translators"] = list(plain["translators"])
    plain["critic"] |= {axis: list(pair) for axis, pair in plain["critic"].items() if isinstance(pair, tuple)}
    return yaml.safe_dump(plain, sort_keys=False)


def read_desk(path: Path | None) -> Desk:
    """The desk of a YAML file; what the file does not name stays as it is. Raises ValueError for anything it does not know."""
    if path is None:
        return Desk()
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a safe loader
        desk = pydantic.TypeAdapter(Desk).validate_python({} if given is None else given)
    except FileNotFoundError:
        raise ValueError(f"noise: there is no file {str(path)!r}") from None
    except OSError as error:
        raise ValueError(f"noise: {str(path)!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"noise: {str(path)!r} is not readable as UTF-8 YAML: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"noise: {'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}") from error
    known = Critic().severity
    if unknown := desk.critic.severity.keys() - known.keys():
        raise ValueError(f"noise: critic.severity.{min(unknown)} is no error; allowed: {', '.join(known)}")
    names = [translator.name for translator in desk.translators]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"noise: translators: {twice[0]!r} stands there twice; give each its own name")
    return replace(desk, critic=replace(desk.critic, severity={**known, **desk.critic.severity}))
