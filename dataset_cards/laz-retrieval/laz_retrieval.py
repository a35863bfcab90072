"""LazRetrieval for `datasets`, in one file that needs only `datasets` and `pyarrow`.

`load_dataset("ORG/laz-retrieval", "th")` needs no script: it reads the Parquet shards by itself, on every version of
`datasets`. This file gives the same rows as a builder, which is what it takes to rewrite or reshard them, and as a
loading script for `datasets` 3.x. A config is a language code (vi th id ms ur bn fil: training rows) or a code with
`-corpus`, `-queries` or `-qrels`; the splits are train, validation and test.

As a class, on any version (with the folder of this file on `sys.path`):

    from laz_retrieval import LazRetrieval
    builder = LazRetrieval(config_name="th")
    builder.download_and_prepare(num_proc=4)
    rows = builder.as_dataset()

As a loading script, on `datasets` 3.x:

    load_dataset("path/to/laz_retrieval.py", "th", trust_remote_code=True)

The data is looked for in the folder of this file, then in the folder above, which is where a repository holds it.
`data_dir` names another place: a folder, or the address of a repository, which may name a revision. So, from the Hub:

    script = hf_hub_download("ORG/laz-retrieval", "scripts/laz_retrieval.py", repo_type="dataset")
    load_dataset(script, "th", data_dir="hf://datasets/ORG/laz-retrieval", trust_remote_code=True)

or, to work without a network afterwards, the whole repository with the script in it:

    folder = snapshot_download("ORG/laz-retrieval", repo_type="dataset")
    load_dataset(f"{folder}/scripts/laz_retrieval.py", "th", trust_remote_code=True)
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

LANGUAGES = ("vi", "th", "id", "ms", "ur", "bn", "fil")
SPLITS = ("train", "validation", "test")
VERSION = datasets.Version("1.0.0")
BATCH = 1000  # rows that are in memory at once

TRANSLATIONS = pa.list_(
    pa.struct(
        [
            ("text", pa.string()),
            ("source", pa.string()),
            ("semantic", pa.int32()),
            ("emotional", pa.int32()),
            ("pragmatic", pa.int32()),
        ]
    )
)
# What follows the language in the name of a config, and the columns of its table.
TABLES = {
    "": pa.schema(
        [
            ("query_id", pa.string()),
            ("query", pa.string()),
            ("language", pa.string()),
            ("script", pa.string()),  # ISO 15924, of the query as typed
            ("slice", pa.list_(pa.string())),
            ("english", pa.string()),
            ("translations", TRANSLATIONS),
            ("product_ids", pa.list_(pa.string())),
            ("relevances", pa.list_(pa.int32())),  # 0 to 3, one for each product id
            ("clean", pa.string()),  # the query before noise
            ("intent", pa.string()),  # JSON: {"kind": ..., "type": ..., "wanted": {axis or "brand": value}}
        ]
    ),
    "-corpus": pa.schema(
        [
            ("_id", pa.string()),
            ("title", pa.string()),
            ("text", pa.string()),
            ("brand", pa.string()),
            ("category_path", pa.string()),
            ("family_id", pa.string()),
            ("attributes", pa.string()),  # JSON: {axis: value}
            ("english", pa.string()),
            ("translations", TRANSLATIONS),
        ]
    ),
    "-queries": pa.schema([("_id", pa.string()), ("text", pa.string())]),
    "-qrels": pa.schema([("query-id", pa.string()), ("corpus-id", pa.string()), ("score", pa.int32())]),
}


@dataclass
class LazRetrievalConfig(datasets.BuilderConfig):
    """One table of one language. `build` tells one build of the data from another, so that none is mistaken in the cache."""

    table: str = ""
    build: str = ""


class LazRetrieval(datasets.ArrowBasedBuilder):
    """Reads the published shards. `data_dir`: a folder, or hf://datasets/ORG/NAME[@REVISION]; by default the place of this file.

    Raises ValueError where there is no data set, or where it lacks the config.
    """

    BUILDER_CONFIG_CLASS = LazRetrievalConfig
    BUILDER_CONFIGS = [
        LazRetrievalConfig(name=f"{language}{table}", version=VERSION, table=table) for language in LANGUAGES for table in TABLES
    ]

    def __init__(self, cache_dir=None, *, data_dir=None, base_path=None, token=None, **options):
        # `datasets` 3.x runs a copy of this file and says by `base_path` where the file itself is.
        self.root = find_root(data_dir, base_path or os.path.dirname(os.path.abspath(__file__)))
        downloads = datasets.DownloadManager(download_config=datasets.DownloadConfig(token=token))
        with open(downloads.download(f"{self.root}/build.json"), "rb") as file:
            record = file.read()
        self.files = list(json.loads(record)["sha256"])
        build = hashlib.sha256(record).hexdigest()[:16]
        super().__init__(cache_dir, base_path=base_path, token=token, build=build, **options)

    def _info(self):
        return datasets.DatasetInfo(
            description="Synthetic product search in seven languages: queries as people type them, products, graded judgements.",
            license="apache-2.0",
            features=datasets.Features.from_arrow_schema(TABLES[self.config.table]),
        )

    def _split_generators(self, dl_manager):
        shards = {split: self._shards(split) for split in SPLITS}
        if not any(shards.values()):
            raise ValueError(f"config: {self.config.name!r} is not in {self.root}; it holds {', '.join(self._configs())}")
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"files": dl_manager.download(paths)})
            for split, paths in shards.items()
            if paths
        ]

    def _shards(self, split):
        pattern = re.compile(rf"{re.escape(self.config.name)}/{split}-\d{{5}}-of-\d{{5}}\.parquet")
        return [f"{self.root}/{name}" for name in sorted(self.files) if pattern.fullmatch(name)]

    def _configs(self):
        return sorted({name.split("/")[0] for name in self.files if name.endswith(".parquet")})

    def _generate_tables(self, files):
        for number, path in enumerate(files):
            with open(path, "rb") as file:
                for index, batch in enumerate(pq.ParquetFile(file).iter_batches(batch_size=BATCH)):
                    yield f"{number}_{index}", pa.Table.from_batches([batch]).cast(TABLES[self.config.table])


def find_root(data_dir, folder):
    """What every path in build.json starts from: the address or folder `data_dir`, else `folder` or the one above it."""
    if "://" in str(data_dir):
        return str(data_dir).rstrip("/")
    places = [os.path.expanduser(data_dir)] if data_dir else [folder, os.path.dirname(os.path.abspath(folder))]
    for place in places:
        if os.path.isfile(os.path.join(place, "build.json")):
            return os.path.abspath(place)
    raise ValueError(f"data_dir: no build.json in {' or '.join(places)}; give the folder of a data set, or hf://datasets/ORG/NAME")
