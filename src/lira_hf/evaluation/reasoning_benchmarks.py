"""MGSM and X-CSQA by lm-evaluation-harness: its own task files for MGSM, ours for X-CSQA, which it lacks.

Systems around a LiRA model, or any causal language model alone: `no_translation` reads the task's prompt as it is, `english_only` with the
first translation in the question's place, `english_best` with the critic's best one. `lira` reads the prompt of `english_best` behind its
soft prompt of the question and its candidates. A LiRA processor with an `llm_prompt` of its own asks with that, in all systems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from statistics import mean

import lm_eval
import lm_eval.tasks
import torch
from datasets import Dataset
from datasets.exceptions import DatasetNotFoundError
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import load_yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lira_hf.evaluation.finished import Finished, data_digest, own_cache, quiet, settings_of, weights_digest
from lira_hf.evaluation.lm_model import LiraLM
from lira_hf.evaluation.reasoning import number
from lira_hf.evaluation.systems import check_systems, is_lira
from lira_hf.evaluation.translations import Candidate, Translations, best_of, given_candidates
from lira_hf.modeling import LiraForCausalLM, LiraProcessor

BATCH_SIZE = 16
CAUSAL_SYSTEMS = ("no_translation", "english_only", "english_best")
HARNESS = Path(lm_eval.tasks.__file__).parent
OWN = files("lira_hf.evaluation") / "tasks"


@dataclass(frozen=True)
class Reading:
    """One way to ask and score. `config` is the harness's task file, {language} in its place; `metrics` names in a table -> the harness's
    name of the metric and its filter; `numbers`: the last number too, by lira_hf.evaluation.reasoning, digits of any script."""

    config: str
    metrics: dict[str, str]
    max_tokens: int
    numbers: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """`languages`: our codes that it has -> its own; `every`: all of its own. `split` is measured; `main` is the metric of the table."""

    name: str
    split: str
    languages: dict[str, str]
    every: tuple[str, ...]
    readings: dict[str, Reading]
    main: str


FLEXIBLE, STRICT, WHOLE = "exact_match,flexible-extract", "exact_match,strict-match", "exact_match,remove_whitespace"
BENCHMARKS = {
    "mgsm": Benchmark(
        "MGSM", "test", {"bn": "bn", "th": "th"}, ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"),
        {
            "native_cot": Reading(
                str(HARNESS / "mgsm" / "native_cot" / "mgsm_native_cot_{language}.yaml"),
                {"native_cot, flexible-extract": FLEXIBLE, "native_cot, strict-match": STRICT}, 512, "native_cot, last number",
            ),
            "direct": Reading(
                str(HARNESS / "mgsm" / "direct" / "mgsm_direct_{language}.yaml"),
                {"direct, flexible-extract": FLEXIBLE, "direct, remove_whitespace": WHOLE}, 256, "direct, last number",
            ),
        },
        "native_cot, flexible-extract",
    ),
    "xcsqa": Benchmark(
        "X-CSQA", "validation", {"vi": "vi", "ur": "ur"},
        ("en", "zh", "de", "es", "fr", "it", "jap", "nl", "pl", "pt", "ru", "ar", "vi", "hi", "sw", "ur"),
        {
            "generation": Reading(str(OWN / "xcsqa_generation.yaml"), {"generated letter": "exact_match,letter"}, 8),
            "likelihood": Reading(str(OWN / "xcsqa_likelihood.yaml"), {"likeliest letter": "acc,none"}, 8),
        },
        "generated letter",
    ),
}  # fmt: skip


# ---- tasks ---------------------------------------------------------------------------------------------------------------


def open_task(
    name: str, reading: str, language: str, translations: Translations, data: str | Path | None = None,
    system: str = "no_translation", prompt: str | None = None,
) -> ConfigurableTask:  # fmt: skip
    """The harness's task of a benchmark in a language (the benchmark's own code), with its data loaded and translated.

    data: a folder with the schema of the Hub's data set, instead of it. system: which text takes the question's place. prompt: replaces the
    task's own; {question} stands for that text. Raises ValueError for data that cannot be read."""
    benchmark, how = BENCHMARKS[name], BENCHMARKS[name].readings[reading]
    config = load_yaml(how.config.format(language=language))
    for key in ("tag", "training_split", "fewshot_split"):  # nothing is shown before the question, and a folder need not hold it
        config.pop(key, None)
    digest = None if data is None else data_digest(data)
    code = next((ours for ours, theirs in benchmark.languages.items() if theirs == language), language)
    config |= {
        "task": f"{name}_{reading}_{language}",
        "dataset_path": config["dataset_path"] if data is None else str(Path(data).absolute()),
        "dataset_name": f"X-CSQA-{language}" if name == "xcsqa" else language,
        "num_fewshot": 0,
        "process_docs": lambda rows: translated(rows, name, code, translations, system),
    }
    if "generation_kwargs" in config:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": how.max_tokens}
    if prompt is not None:
        config["doc_to_text"] = lambda doc: prompt.replace("{question}", doc["asked"])
    try:
        with quiet(), own_cache(digest):
            return ConfigurableTask(config=config)
    except (DatasetNotFoundError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"data: {config['dataset_path']!r} cannot be read as {benchmark.name} ({type(error).__name__}: {reason})") from error


def translated(rows: Dataset, name: str, code: str, translations: Translations, system: str) -> Dataset:
    """Rows with the columns that prompts and LiraLM read: `source`, `language`, `candidates` (their own, else the table's), and in `asked`, and
    where the task's own prompt looks for it, the text that a system asks with."""
    if name == "xcsqa":
        rows = rows.filter(is_whole)

    def add(row: dict) -> dict:
        source, more = (row["question"], {}) if name == "mgsm" else question_of(row)
        given = given_candidates(own_candidates(row))
        given = translations.of(source, code) if given is None else given
        asked = asked_with(source, given, system)
        return {
            "source": source, "language": code, "candidates": json.dumps(given, ensure_ascii=False), "asked": asked,
            "question" if name == "mgsm" else "text": asked, **more,
        }  # fmt: skip

    # Not from the cache of `datasets`, which does not see the translations in a closure.
    return rows.map(add, load_from_cache_file=False, remove_columns=["question"] if name == "xcsqa" else [])


def own_candidates(row: dict) -> str | None:
    """What a row's own column `translations` or `translation` says, as given_candidates reads it."""
    own = row.get("translations") or row.get("translation")
    return own if own is None or isinstance(own, str) else json.dumps(own)


def asked_with(source: str, given: Sequence[Candidate], system: str) -> str:
    """The text that a system asks with; the source where there is no candidate."""
    if system == "no_translation" or not given:
        return source
    if system == "english_only":
        return given[0]["text"]
    return best_of(given)["text"]


def choices_of(row: dict) -> tuple[list[str], list[str]]:
    """Letters and words of a row's choices, which stand in the Hub's layout {label: [...], text: [...]} or as a list of {label, text}."""
    choices = row["question"]["choices"]
    if isinstance(choices, dict):
        return list(choices["label"]), list(choices["text"])
    return [each["label"] for each in choices], [each["text"] for each in choices]


def is_whole(row: dict) -> bool:
    """Whether a row of X-CSQA has an answer and no empty option: the blind test split has none, six German rows have one."""
    labels, texts = choices_of(row)
    return row["answerKey"] in labels and all(text.strip() for text in texts)


def question_of(row: dict) -> tuple[str, dict]:
    """A row of X-CSQA as one text, its options behind their letters, and its letters."""
    labels, texts = choices_of(row)
    options = "\t".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))
    return f"{row['question']['stem']}\nOptions: {options}", {"labels": labels}


# ---- systems -------------------------------------------------------------------------------------------------------------


@dataclass
class Speaker:
    """A language model as the harness takes it. `digest` names its weights and how it is asked; prompt: see open_task."""

    lm: LM
    digest: str
    prompt: str | None = None
    chat: bool = False


def open_speakers(
    model: str | Path, names: Sequence[str] | None = None, batch_size: int = BATCH_SIZE, translated: bool = True, device: str | None = None
) -> dict[str, Speaker]:
    """The systems of that name around a LiRA with a language model, or any causal language model, by name. names: None for all of them, or where
    no question is translated for those that do not read a translation alone. Raises ValueError for others."""
    name, lira = str(model), is_lira(model)
    allowed = (*CAUSAL_SYSTEMS, "lira") if lira else CAUSAL_SYSTEMS
    names = check_systems(names, allowed, [each for each in allowed if translated or not each.startswith("english")])
    device = device or (torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu")
    if not lira:
        try:
            llm, tokenizer = AutoModelForCausalLM.from_pretrained(name, dtype="auto").to(device).eval(), AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(f"model: {name!r} is no causal language model that can be loaded ({str(error).splitlines()[0]})") from error
        alone = _alone(llm, tokenizer, batch_size, None, True)
        return dict.fromkeys(names, alone)
    try:
        whole = LiraForCausalLM.from_pretrained(name).to(device).eval()
    except ValueError as error:
        raise ValueError(f"model: {name!r} cannot answer ({error})") from error
    processor = LiraProcessor.from_pretrained(name)
    prompt = processor.llm_prompt if processor.llm_prompt != "{question}" else None
    alone = _alone(whole.llm, processor.llm_tokenizer, batch_size, prompt, processor.chat)
    tokenizers = (processor.tokenizer, processor.english_tokenizer, processor.llm_tokenizer)
    how = (processor.prompts, processor.max_length, processor.llm_max_length, prompt, _talk(whole.llm, processor.llm_tokenizer, processor.chat))
    digest = weights_digest([whole], tokenizers, settings_of(whole.config), *how)
    return {each: Speaker(LiraLM(whole, processor, batch_size), digest, prompt) if each == "lira" else alone for each in names}


def _alone(llm, tokenizer, batch_size: int, prompt: str | None, chat: bool) -> Speaker:
    chat = bool(chat and tokenizer.chat_template)
    digest = weights_digest([llm], [tokenizer], settings_of(llm.config), prompt, _talk(llm, tokenizer, chat))
    return Speaker(HFLM(pretrained=llm, tokenizer=tokenizer, batch_size=batch_size), digest, prompt, chat)


def _talk(llm, tokenizer, chat: bool) -> tuple:
    """What an answer depends on beside weights and configuration: how it is generated, and the chat template where it is used."""
    return settings_of(llm.generation_config), tokenizer.chat_template if chat else None


# ---- measuring -----------------------------------------------------------------------------------------------------------


def answer(task: ConfigurableTask, speaker: Speaker) -> dict:
    """The harness's scores of a task, and what was answered: {"scores": {metric: 0..1}, "answers": [text, ...], "gold": [text, ...]}."""
    loaded = TaskManager(include_defaults=False).load([task])
    with quiet():
        found = lm_eval.evaluate(
            speaker.lm, loaded, bootstrap_iters=0, log_samples=True, apply_chat_template=speaker.chat, fewshot_as_multiturn=speaker.chat
        )
    name = task.config.task
    scores = {key: value for key, value in found["results"][name].items() if isinstance(value, float) and "stderr" not in key}
    samples = {sample["doc_id"]: sample for sample in found["samples"][name]}.values()  # a row for each filter
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    generated = task.OUTPUT_TYPE == "generate_until"
    return {
        "scores": scores,
        "answers": [sample["resps"][0][0] for sample in samples] if generated else [],
        "gold": [str(sample["doc"].get("answer_number", sample["doc"].get("answerKey"))) for sample in samples],
    }


def percentages(reading: Reading, found: dict) -> dict[str, float]:
    """0 to 100 by the names of a table."""
    scores = {name: 100 * found["scores"][key] for name, key in reading.metrics.items()}
    if reading.numbers:
        scores[reading.numbers] = 100 * mean(number(said) == number(gold) for said, gold in zip(found["answers"], found["gold"], strict=True))
    return scores


def hub_path(name: str) -> str:
    """The Hub's data set of a benchmark, as its task files name it."""
    how = next(iter(BENCHMARKS[name].readings.values()))
    return load_yaml(how.config.format(language=next(iter(BENCHMARKS[name].languages.values()))))["dataset_path"]


def columns_of(name: str, languages: Sequence[str] | None = None, every: bool = False) -> dict[str, str]:
    """The benchmark's own codes of the languages to measure -> what a table calls them. Raises ValueError for one that it lacks."""
    benchmark = BENCHMARKS[name]
    for code in languages or ():
        if code not in benchmark.languages:
            raise ValueError(f"languages: {benchmark.name} has no {code!r}; it has {', '.join(benchmark.languages)}")
    if every:
        return {theirs: theirs for theirs in benchmark.every}
    return {benchmark.languages[code]: code for code in languages or benchmark.languages}


def evaluate_speakers(
    name: str, columns: dict[str, str], speakers: dict[str, Speaker], translations: Translations, output: str | Path,
    data: str | Path | None = None,
) -> dict[str, dict]:  # fmt: skip
    """The `systems` of results.json, 0 to 100, each metric beside the main one under "metrics". What was answered is kept in OUTPUT/cache,
    by weights, data and translations; a run that was killed goes on with the next language."""
    benchmark, finished = BENCHMARKS[name], Finished(Path(output) / "cache" / name)
    where = {"data": None if data is None else data_digest(data), "translations": translations.digest, "lm_eval": version("lm_eval")}
    board = {}
    for each, speaker in speakers.items():
        metrics: dict[str, dict[str, float]] = {}
        for theirs, column in columns.items():
            for reading, how in benchmark.readings.items():

                def work(reading=reading, theirs=theirs, each=each, speaker=speaker) -> dict:
                    system = "english_best" if each == "lira" else each
                    return answer(open_task(name, reading, theirs, translations, data=data, system=system, prompt=speaker.prompt), speaker)

                key = {"system": each, "part": f"{reading} {theirs}", "weights": speaker.digest, "max_tokens": how.max_tokens, **where}
                for metric, score in percentages(how, finished.get(key, work)).items():
                    metrics.setdefault(metric, {})[column] = round(score, 4)
        tables = {metric: {"languages": scores, "average": round(mean(scores.values()), 4)} for metric, scores in metrics.items()}
        main = tables.pop(benchmark.main)
        board[each] = {**main, "metrics": tables}
    finished.say()
    return board


def questions_of(name: str, columns: dict[str, str], translations: Translations, data: str | Path | None = None) -> list[dict]:
    """Every question, with the columns of translated(); looks all of them up in translations."""
    reading = next(iter(BENCHMARKS[name].readings))
    return [doc for theirs in columns for doc in open_task(name, reading, theirs, translations, data=data).eval_docs]
