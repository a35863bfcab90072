"""The translators' desk as a file: what is written is read back, and a mistake is named."""

import dataclasses
from random import Random

import pytest
import yaml

from lira_hf.catalogue.candidates import TRANSLATORS, Critic, Desk, Source, Translator, translate
from lira_hf.catalogue.desk import read_desk, write_desk
from lira_hf.catalogue.lexicon import load_words

OTHER = Desk(
    translators=(Translator("sure", 0.0, 0.0, 0.1), Translator("wild", 0.9, 0.5, 1.0, 0.3, 0.2, 1.0, source_order=True, synonyms=True)),
    candidates=2,
    critic=Critic(sigma=0.0, severity={**Critic().severity, "type": 9.0}, semantic=(10.0, 0.5), stiff=(6.0, 0.1)),
    hard_words=0.4,
    hard_misread=1.0,
)


def _read(tmp_path, text):
    path = tmp_path / "noise.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_desk(path)


@pytest.mark.parametrize("desk", [Desk(), OTHER], ids=["default", "other"])
def test_what_is_written_is_read_back(desk, tmp_path):
    found = _read(tmp_path, write_desk(desk))
    assert found == desk and write_desk(found) == write_desk(desk)
    assert dataclasses.asdict(found) == dataclasses.asdict(desk)


def test_the_file_shows_every_field_to_be_changed():
    shown = yaml.safe_load(write_desk(Desk()))
    assert list(shown) == [field.name for field in dataclasses.fields(Desk)]
    assert [translator["name"] for translator in shown["translators"]] == [translator.name for translator in TRANSLATORS]
    assert all(list(translator) == [field.name for field in dataclasses.fields(Translator)] for translator in shown["translators"])
    assert list(shown["critic"]) == [field.name for field in dataclasses.fields(Critic)]
    assert "!!" not in write_desk(Desk())


def test_what_a_file_does_not_name_stays(tmp_path):
    assert read_desk(None) == Desk() == _read(tmp_path, "") == _read(tmp_path, "# nothing\n") == _read(tmp_path, "{}")
    assert _read(tmp_path, "hard_words: 0.5") == Desk(hard_words=0.5)
    assert _read(tmp_path, "critic: {sigma: 0}") == Desk(critic=Critic(sigma=0.0))
    found = _read(tmp_path, "translators: [{name: ours, wrong_type: 0, wrong_value: 0.5, misread: 1}]\ncandidates: 1")
    assert found == Desk((Translator("ours", 0.0, 0.5, 1.0),), 1)


def test_a_severity_that_is_not_named_stays(tmp_path):
    """Else one changed number would take away the others, and the first error of that kind would end the build."""
    assert _read(tmp_path, "critic: {severity: {type: 9.0}}") == Desk(critic=Critic(severity={**Critic().severity, "type": 9.0}))


def test_a_desk_that_was_read_translates(tmp_path, catalogue):
    desk = _read(tmp_path, write_desk(OTHER))
    source = Source({"type": "mug", "colour": "red"}, {"type": "แก้วมัค", "colour": "สีแดง"}, frozenset({"colour"}))
    for seed in range(20):
        first, second = (
            translate(source, catalogue, load_words("en"), Random(seed), types=frozenset(catalogue.types), desk=each) for each in (desk, OTHER)
        )
        assert first == second and {candidate.source for candidate in first} <= {"sure", "wild"}


_OURS = "name: ours, wrong_type: 0, wrong_value: 0, misread: 0"
MISTAKES = {
    "unknown field": ("hard_wrods: 0.5", "hard_wrods = 0.5"),
    "unknown field of the critic": ("critic: {sgima: 1}", r"critic\.sgima = 1"),
    "unknown field of a translator": (f"translators: [{{{_OURS}, droped: 0.1}}]", r"translators\.0\.droped = 0\.1"),
    "share above one": ("hard_words: 1.5", r"hard_words = 1\.5: .* less than or equal to 1"),
    "share below nothing": (f"translators: [{{{_OURS}}}, {{{_OURS}, dropped: -0.1}}]", r"translators\.1\.dropped = -0\.1: .* greater"),
    "no number": ("hard_words: often", "hard_words = 'often'"),
    "not a number": ("hard_words: .nan", "hard_words = nan"),
    "missing field": ("translators: [{name: ours}]", r"translators\.0\.wrong_type"),
    "no translators": ("translators: []", r"translators = \[\]"),
    "no candidates": ("candidates: 0", "candidates = 0"),
    "half a candidate": ("candidates: 1.5", "candidates = 1.5"),
    "negative noise": ("critic: {sigma: -1}", r"critic\.sigma = -1"),
    "noise without end": ("critic: {sigma: .inf}", r"critic\.sigma = inf"),
    "noise that is no number": ("critic: {sigma: .nan}", r"critic\.sigma = nan"),
    "severity that is no number": ("critic: {severity: {type: .nan}}", r"critic\.severity\.type = nan"),
    "severity of nothing": ("critic: {severity: {tpye: 9.0}}", r"critic\.severity\.tpye"),
    "base without weight": ("critic: {semantic: [9.5]}", r"critic\.semantic"),
    "translators of one name": (f"translators: [{{{_OURS}}}, {{{_OURS}}}]", "translators.*ours"),
    # Every order of the translators is listed once for all draws: of twelve there are 479 million.
    "more translators than can be put in every order": (
        f"candidates: 12\ntranslators: [{', '.join(['{' + _OURS.replace('ours', f'n{n}') + '}' for n in range(12)])}]",
        "translators",
    ),
    "a list": ("- 1", r"\[1\]"),
    "a word": ("noise", "'noise'"),
    "a zero": ("0", "0"),
    "not YAML": ("a: [", "is not readable as UTF-8 YAML"),
    "not UTF-8": (b"hard_words: \xff", "is not readable as UTF-8 YAML"),
    "a field twice": ("hard_words: 0.5\nhard_words: 0.1", "hard_words"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_in_one_line(name, tmp_path):
    text, message = MISTAKES[name]
    with pytest.raises(ValueError, match=f"^noise: .*{message}") as error:
        _read(tmp_path, text)
    assert type(error.value) is ValueError and "pydantic" not in str(error.value)
    assert "\n" not in str(error.value) or "YAML" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"noise: there is no file '.*nowhere\.yaml'"):
        read_desk(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="noise: "):
        read_desk(tmp_path)  # a folder
