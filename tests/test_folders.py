"""Data read from folders."""

import pyarrow.parquet as pq
from small_data import small_data

from lira_hf.collation import read


def test_folders_of_one_name_are_not_taken_for_each_other(tmp_path):
    small_data(tmp_path / "one", ["th"])
    first, second = tmp_path / "one" / "cut", tmp_path / "two" / "cut"
    (second / "th").mkdir(parents=True)
    (second / "th-corpus").symlink_to(first / "th-corpus")
    for file in (first / "th").glob("*.parquet"):
        pq.write_table(pq.read_table(file).slice(0, 3), second / "th" / file.name)
    assert [len(read(folder, "th", "validation").queries) for folder in (first, second)] == [8, 3]
