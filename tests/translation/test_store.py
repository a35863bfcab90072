"""The store: nothing that was said is lost, nothing is there twice, and equal stores have equal digests."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest

from lira_hf.translation import store as store_module
from lira_hf.translation.records import key_of
from lira_hf.translation.store import SCORES, TRANSLATIONS, Store, score_id


def answer(text, source="a", language="th", candidates=("one", "two"), asked=2, failure=None):
    return {
        **{"key": key_of(language, text), "language": language, "text": text, "source": source, "asked": asked},
        **{"candidates": list(candidates), "prompt_tokens": 3, "completion_tokens": 5, "failure": failure},
    }


def score(text, candidate, mark=7, judge="j", round=0, language="th"):
    marks = {"semantic": mark, "emotional": mark, "pragmatic": mark}
    rest = {"prompt_tokens": 1, "completion_tokens": 1, "failure": None if mark else "malformed"}
    return {"key": key_of(language, text), "language": language, "candidate": candidate, "judge": judge, "round": round, **marks, **rest}


def filled(folder, records):
    with Store(folder) as store:
        for record in records:
            store.append(SCORES if "judge" in record else TRANSLATIONS, [record])
    return Store(folder)


MANY = [*(answer(f'ทีวี {i}\n\u2028"', language=("th", "bn")[i % 2]) for i in range(40)), *(score(f"ทีวี {i}", f"tv {i}") for i in range(40))]


def test_what_was_appended_is_read_back_before_and_after_it_became_a_shard(tmp_path):
    store = Store(tmp_path)
    for record in MANY:
        store.append(SCORES if "judge" in record else TRANSLATIONS, [record])
    before, expected = store.digest(), sorted(MANY[:40], key=lambda record: record["key"])
    assert list(store.view(TRANSLATIONS)) == expected
    store.close()
    assert list(store.view(TRANSLATIONS)) == expected
    assert store.digest() == before
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [SCORES, TRANSLATIONS]


def test_the_digest_says_what_is_in_a_store_and_not_how_it_came_there(tmp_path):
    shuffled = random.Random(1).sample(MANY, len(MANY))
    store = filled(tmp_path / "a", MANY)
    filled(tmp_path / "b", shuffled[:33])
    assert filled(tmp_path / "b", shuffled[33:]).digest() == store.digest()
    assert filled(tmp_path / "b", [answer("another")]).digest() != store.digest()


def test_lookups_follow_the_order_of_the_keys(tmp_path):
    view = filled(tmp_path, [answer("x", "b"), answer("x", "a"), answer("y")]).view(TRANSLATIONS, "th")
    found = view.look_up([key_of("th", "y"), key_of("th", "nowhere"), key_of("th", "x")])
    assert [[record["source"] for record in records] for records in found] == [["a"], [], ["a", "b"]]
    assert view.look_up([]) == []
    assert Store(tmp_path / "empty").view(TRANSLATIONS).look_up([key_of("th", "y")]) == [[]]


def test_done_is_by_source_language_and_number_asked(tmp_path):
    store = filled(
        tmp_path, [answer("x"), answer("y", asked=4), answer("z", failure="timeout", candidates=()), answer("x", "b"), answer("x", language="bn")]
    )
    x, y, z = (key_of("th", text) for text in "xyz")
    assert store.translated("a", 2, "th") == {x, y, z}
    assert store.translated("a", 2) == {x, y, z, key_of("bn", "x")}
    assert store.translated("a", 3, "th") == {y}
    assert store.translated("a", 2, "th", failed=False) == {x, y}
    assert store.translated("b", 2, "th") == {x}
    scores = filled(tmp_path, [score("x", "one"), score("x", "two", None), score("x", "one", judge="k"), score("x", "one", round=1)])
    assert scores.judged("j") == {score_id(x, "one", 0), score_id(x, "two", 0), score_id(x, "one", 1)}
    assert scores.judged("j", "th", failed=False) == {score_id(x, "one", 0), score_id(x, "one", 1)}
    assert scores.judged("j", "bn") == set()


@pytest.mark.parametrize(
    ("loser", "winner"),
    [
        (answer("x", failure="timeout", candidates=(), asked=8), answer("x")),
        (answer("x", asked=2), answer("x", asked=4, candidates=("p", "q", "r"))),
        (answer("x", candidates=("b",)), answer("x", candidates=("a",))),
        (score("x", "c", None), score("x", "c", 3)),
    ],
)
def test_of_two_records_one_counts_whatever_came_first(tmp_path, loser, winner):
    kind = SCORES if "judge" in winner else TRANSLATIONS
    for name, records in (("a", [loser, winner]), ("b", [winner, loser])):
        assert list(filled(tmp_path / name, records).view(kind)) == [winner]
    filled(tmp_path / "c", [loser])
    assert list(filled(tmp_path / "c", [winner]).view(kind)) == [winner]


def kept_by_a_killed_process(folder, code="pass"):
    """The folder of a store whose process wrote MANY and was killed."""
    program = f"""
import json, os, signal, sys
from lira_hf.translation.store import Store
store = Store(sys.argv[1])
for kind, record in json.load(sys.stdin):
    store.append(kind, [record])
{code}
os.kill(os.getpid(), signal.SIGKILL)
"""
    said = json.dumps([(SCORES if "judge" in record else TRANSLATIONS, record) for record in MANY])
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], input=said, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == -signal.SIGKILL
    return folder


def test_the_next_process_takes_over_the_journal_of_one_that_was_killed(tmp_path):
    kept_by_a_killed_process(tmp_path / "store")
    assert [path.suffix for path in (tmp_path / "store").iterdir()] == [".jsonl"]
    assert Store(tmp_path / "store").digest() == filled(tmp_path / "whole", MANY).digest()
    assert {path.suffix for path in (tmp_path / "store").iterdir()} == {".parquet"}


@pytest.mark.parametrize("cut", [1, 2, 50])
def test_a_torn_last_line_is_dropped_and_nothing_else(tmp_path, cut):
    kept_by_a_killed_process(tmp_path / "store")
    journal = next((tmp_path / "store").glob("journal-*"))
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert Store(tmp_path / "store").digest() == filled(tmp_path / "whole", MANY[:-1]).digest()


def test_a_process_killed_between_shard_and_journal_leaves_no_double(tmp_path):
    journal_kept = "type(store.folder).unlink = lambda path: os.kill(os.getpid(), signal.SIGKILL)\nstore.close()"
    kept_by_a_killed_process(tmp_path / "store", journal_kept)
    assert {path.suffix for path in (tmp_path / "store").iterdir()} == {".jsonl", ".parquet"}
    store, whole = Store(tmp_path / "store"), filled(tmp_path / "whole", MANY)
    assert store.digest() == whole.digest()
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(path.name for path in whole.folder.iterdir())


def test_the_journal_of_a_living_process_is_read_and_left_alone(tmp_path):
    first = Store(tmp_path)
    first.append(TRANSLATIONS, [answer("x")])
    second = Store(tmp_path)
    second.append(TRANSLATIONS, [answer("y")])
    assert first.translated("a", 1) == second.translated("a", 1) == {key_of("th", "x"), key_of("th", "y")}
    assert len(list(tmp_path.glob("journal-*"))) == 2
    second.close()
    first.append(TRANSLATIONS, [answer("z")])
    first.close()
    assert len(Store(tmp_path).view(TRANSLATIONS)) == 3


def test_a_long_journal_becomes_shards_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "FOLD_LINES", 10)
    with Store(tmp_path) as store:
        for record in MANY[:25]:
            store.append(TRANSLATIONS, [record])
        assert len(list(tmp_path.glob("*.parquet"))) == 2
        assert len(store.view(TRANSLATIONS)) == 25
    assert store.digest() == filled(tmp_path / "whole", MANY[:25]).digest()


def test_merging_takes_the_shards_once_and_those_of_a_killed_run(tmp_path):
    store = filled(tmp_path / "a", MANY[:50])
    filled(tmp_path / "b", MANY[30:])
    assert store.merge(tmp_path / "b") == 2
    assert store.merge(tmp_path / "b") == 0
    assert store.digest() == filled(tmp_path / "whole", MANY).digest()
    fresh = Store(tmp_path / "c")
    fresh.merge(kept_by_a_killed_process(tmp_path / "killed"))
    assert fresh.digest() == store.digest()


def test_copying_shards_by_hand_merges_too(tmp_path):
    store = filled(tmp_path / "a", MANY[:50])
    for path in filled(tmp_path / "b", MANY[30:]).folder.iterdir():
        (store.folder / path.name).write_bytes(path.read_bytes())
    assert store.digest() == filled(tmp_path / "whole", MANY).digest()


def test_what_cannot_be_merged_or_read_is_named(tmp_path):
    store = Store(tmp_path / "a")
    with pytest.raises(ValueError, match=r"merge: .*nowhere.* holds no store"):
        store.merge(tmp_path / "nowhere")
    other = Store(tmp_path / "b")
    other.append(TRANSLATIONS, [answer("x")])
    with pytest.raises(ValueError, match="in use by another process"):
        store.merge(tmp_path / "b")
    other.close()
    shard = next((tmp_path / "b").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"merge: .*{shard.name}.* is damaged"):
        store.merge(tmp_path / "b")
    assert not list((tmp_path / "a").iterdir())
    with pytest.raises(ValueError, match=f"store: .*{shard.name}.* cannot be read"):
        Store(tmp_path / "b").view(TRANSLATIONS)


def test_the_records_of_one_request_are_there_together_or_not_at_all(tmp_path):
    Store(tmp_path).append(SCORES, [score("x", "one"), score("x", "two")])
    journal = next(tmp_path.glob("journal-*"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / journal.name).write_bytes(journal.read_bytes()[:-3])
    assert len(Store(tmp_path / "torn").view(SCORES)) == 0


def test_text_that_utf_8_cannot_hold_costs_a_letter_and_not_the_run(tmp_path):
    store = filled(tmp_path, [answer("x", candidates=("half a pair: \ud83d",))])
    assert next(iter(store.view(TRANSLATIONS)))["candidates"] == ["half a pair: ?"]
