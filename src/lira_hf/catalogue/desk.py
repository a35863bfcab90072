"""The simulated translators and their critic as a YAML file that people can change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pydantic
import yaml

from lira_hf.catalogue.candidates import Desk


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
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        return pydantic.TypeAdapter(Desk).validate_python(given or {})
    except FileNotFoundError:
        raise ValueError(f"noise: there is no file {str(path)!r}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"noise: {str(path)!r} is not readable as UTF-8 YAML: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"noise: {'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}") from error
