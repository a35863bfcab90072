"""MGSM and X-CSQA through lm-evaluation-harness: its scores are ours on the same outputs, and LiRA reads what it should."""

import json
import shutil
from dataclasses import replace
from decimal import Decimal

import lm_eval
import pytest
import small_benchmarks
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from small_backbones import SMALL, stirred

from lira_hf import LiraForCausalLM, LiraProcessor
from lira_hf.evaluation import reasoning_benchmarks
from lira_hf.evaluation.benchmarks import evaluate
from lira_hf.evaluation.lm_model import LiraLM, cut, generation_options
from lira_hf.evaluation.reasoning import number
from lira_hf.evaluation.reasoning_benchmarks import (
    BENCHMARKS,
    HARNESS,
    Speaker,
    answer,
    columns_of,
    open_speakers,
    open_task,
    percentages,
    question_of,
    questions_of,
)
from lira_hf.evaluation.translations import Translations, best_of, row_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("benchmarks")
    return {"mgsm": str(small_benchmarks.mgsm(root / "mgsm")), "xcsqa": str(small_benchmarks.xcsqa(root / "xcsqa"))}


@pytest.fixture(scope="module")
def parts(backbones, llms) -> tuple[LiraForCausalLM, LiraProcessor]:
    torch.manual_seed(0)
    model = stirred(LiraForCausalLM.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["qwen3-lm"], **SMALL))
    return model, LiraProcessor.from_backbones(backbones["xlm-r"], backbones["bert"], llm=llms["qwen3-lm"])


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "small"
    for part in parts:
        part.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def table(folders) -> Translations:
    found = Translations()
    for question in questions_of("mgsm", {"bn": "bn", "th": "th"}, Translations(), folders["mgsm"]):
        code, text = question["language"], question["source"]
        marks = {"semantic": 9, "emotional": 9, "pragmatic": 9}
        found.add(text, code, [{"text": f"first of {text[-6:]}"}, {"text": f"best of {text[-6:]}", **marks}])
    return found


class Scripted(LM):
    """Answers by a function of the row; of choices it prefers what the function says. Remembers its prompts."""

    def __init__(self, say):
        super().__init__()
        self.say, self.prompts = say, []

    def generate_until(self, requests, disable_tqdm=False):
        self.prompts += [request.args[0] for request in requests]
        return [self.say(request.doc) for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        self.prompts += [request.args[0] for request in requests]
        return [(0.0 if request.args[1].strip() == self.say(request.doc) else -9.0, False) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


def scored(name: str, reading: str, language: str, folder: str, say) -> tuple[dict[str, float], dict]:
    found = answer(open_task(name, reading, language, Translations(), data=folder), Speaker(Scripted(say), "scripted"))
    return percentages(BENCHMARKS[name].readings[reading], found), found


# ---- MGSM ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("say", "shares"),
    [  # six rows, with the answers 1, 3, 5, 7, 9, 11; the shares of flexible-extract and of the last number
        (lambda doc: f"2 + 2. The answer is {doc['answer_number']}.", (100.0, 100.0)),
        (lambda doc: str(doc["answer_number"] + 1), (0.0, 0.0)),
        (lambda doc: str(doc["answer_number"] if doc["answer_number"] < 6 else 0), (50.0, 50.0)),
        (lambda doc: "no number at all", (0.0, 0.0)),
        (lambda doc: f"{doc['answer_number']}.0", (0.0, 100.0)),  # the harness compares strings
        (lambda doc: str(doc["answer_number"]).translate(str.maketrans("0123456789", "০১২৩৪৫৬৭৮৯")), (0.0, 100.0)),
    ],
)
@pytest.mark.parametrize("reading", ["direct", "native_cot"])
def test_scores_of_mgsm_are_the_shares_that_the_outputs_deserve(say, shares, reading, folders):
    scores, found = scored("mgsm", reading, "bn", folders["mgsm"], say)
    assert (scores[f"{reading}, flexible-extract"], scores[f"{reading}, last number"]) == shares
    assert found["gold"] == ["1", "3", "5", "7", "9", "11"] and len(found["answers"]) == 6
    ours = [number(said) == number(gold) for said, gold in zip(found["answers"], found["gold"], strict=True)]
    assert scores[f"{reading}, last number"] == 100 * sum(ours) / 6


def test_strict_match_and_whole_answers_are_told_apart(folders):
    exact, _ = scored("mgsm", "direct", "th", folders["mgsm"], lambda doc: f" {doc['answer_number']} ")
    said, _ = scored("mgsm", "direct", "th", folders["mgsm"], lambda doc: f"it is {doc['answer_number']}")
    assert (exact["direct, remove_whitespace"], said["direct, remove_whitespace"], said["direct, flexible-extract"]) == (100.0, 0.0, 100.0)
    announced, _ = scored("mgsm", "native_cot", "th", folders["mgsm"], lambda doc: f"คำตอบคือ {doc['answer_number']} 99")
    assert (announced["native_cot, strict-match"], announced["native_cot, flexible-extract"]) == (100.0, 0.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("18.", "18"), ("70,000", "70000"), ("18.0", "18"), ("$1,234.50", "1234.5"), ("-5", "-5"), ("৪২", "42"), ("1 2 ๓", "3"), ("#### 7\n", "7")],
)
def test_the_last_number_of_a_text(text, wanted):
    assert number(text) == Decimal(wanted)


def test_no_number_is_not_zero():
    assert number("none") is None and number("none") != number("0")


def test_systems_ask_with_the_source_or_a_translation(folders, table):
    for system, words in (("no_translation", "+"), ("english_only", "first of"), ("english_best", "best of")):
        lm = Scripted(lambda doc: "1")
        answer(open_task("mgsm", "direct", "th", table, data=folders["mgsm"], system=system), Speaker(lm, "scripted"))
        assert len(lm.prompts) == 6 and all(p.startswith("โจทย์: ") and p.endswith("\nAnswer:") and words in p for p in lm.prompts), system
    own = Scripted(lambda doc: "1")
    answer(open_task("mgsm", "direct", "th", table, data=folders["mgsm"], system="english_best", prompt="Q: {question} A:"), Speaker(own, "scripted"))
    assert all(prompt.startswith("Q: best of") and prompt.endswith(" A:") for prompt in own.prompts)


def test_the_best_candidate_is_the_processors(parts):
    marks = lambda *values: dict(zip(("semantic", "emotional", "pragmatic"), values, strict=True))  # noqa: E731
    for given in (
        [{"text": "a"}, {"text": "b", **marks(5, 5, 5)}],
        [{"text": "a", **marks(5, 5, 5)}, {"text": "b"}],
        [{"text": "a", **marks(9, 1, 9)}, {"text": "b", **marks(7, 7, 7)}, {"text": "c", **marks(7, 7, 7)}],
    ):
        full = [{**marks(None, None, None), **each} for each in given]
        assert best_of(full)["text"] == parts[1].question(row_of("x", "th", given))


# ---- X-CSQA ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["generation", "likelihood"])
@pytest.mark.parametrize(
    ("say", "share"),
    [
        (lambda doc: doc["answerKey"], 100.0),
        (lambda doc: "A", 100 / 3),  # six rows: A B C D E A
        (lambda doc: "B" if doc["answerKey"] == "A" else "A", 0.0),
    ],
)
def test_scores_of_xcsqa_are_the_shares_that_the_outputs_deserve(reading, say, share, folders):
    scores, found = scored("xcsqa", reading, "vi", folders["xcsqa"], say)
    assert list(scores.values()) == [pytest.approx(share)] and found["gold"] == list("ABCDEA")


def test_a_letter_with_words_behind_it_is_no_letter(folders):
    scores, _ = scored("xcsqa", "generation", "vi", folders["xcsqa"], lambda doc: f"{doc['answerKey']}. because")
    assert scores == {"generated letter": 0.0}
    scores, _ = scored("xcsqa", "generation", "vi", folders["xcsqa"], lambda doc: f" {doc['answerKey']}\n")
    assert scores == {"generated letter": 100.0}


def test_xcsqa_is_read_in_both_layouts_without_blind_rows(folders, tmp_path):
    flat = str(small_benchmarks.xcsqa(tmp_path / "flat", flat=True))
    docs = [list(open_task("xcsqa", "likelihood", "ur", Translations(), data=folder).eval_docs) for folder in (folders["xcsqa"], flat)]
    assert len(docs[0]) == len(docs[1]) == 6 and [doc["source"] for doc in docs[0]] == [doc["source"] for doc in docs[1]]
    assert docs[0][0]["source"].count("\t") == 4 and "\nOptions: A. " in docs[0][0]["source"]
    assert open_task("xcsqa", "likelihood", "ur", Translations(), data=flat).config.validation_split == "validation"
    row = {"question": {"stem": "Which?", "choices": {"label": ["A", "B"], "text": ["red", "blue"]}}}
    assert question_of(row) == ("Which?\nOptions: A. red\tB. blue", {"labels": ["A", "B"]})


# ---- LiRA as a model of the harness --------------------------------------------------------------------------------------------


def instances(parts, requests: list[tuple], kind: str = "generate_until") -> list[Instance]:
    doc = {"language": "th", "candidates": json.dumps([{"text": "TV 55"}, {"text": "smart TV", "semantic": 9, "emotional": 8, "pragmatic": 9}])}
    return [Instance(kind, {"source": f"ทีวี {i // 2}", **doc}, args, i) for i, args in enumerate(requests)]


def test_generation_is_respond_up_to_the_stops(parts):
    model, processor = parts
    lm = LiraLM(model, processor, batch_size=3)
    given = dict(processor=processor, translations=[["TV 55", "smart TV"]], scores=[[None, (9, 8, 9)]], language="th", prompt_name="query")
    whole = [model.respond([f"ทีวี {i // 2}"], prompt=[f"Q{i}:"], max_new_tokens=12, **given)[0] for i in range(4)]
    assert len(set(whole)) > 1 and all(len(text) > 3 for text in whole)
    settings = {"until": [], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0}
    assert lm.generate_until(instances(parts, [(f"Q{i}:", settings) for i in range(4)])) == whole
    stops = [text[2:4] for text in whole]
    mixed = [(f"Q{i}:", {**settings, "until": [stop, "</s>"]}) for i, stop in enumerate(stops)]  # settings of their own: groups of one
    assert lm.generate_until(instances(parts, mixed)) == [text[: text.find(stop)] for text, stop in zip(whole, stops, strict=True)]


def test_likelihoods_are_those_of_choices(parts, monkeypatch):
    model, processor = parts
    requests = [("Q:", " A"), ("Q:", " B"), ("Q2:", " A"), ("Q2:", " BB")]
    found = LiraLM(model, processor).loglikelihood(instances(parts, requests, "loglikelihood"))
    given = dict(processor=processor, translations=[["TV 55", "smart TV"]], scores=[[None, (9, 8, 9)]], language="th", prompt_name="query")
    for place, (prompt, choices) in enumerate((("Q:", ["A", "B"]), ("Q2:", ["A", "BB"]))):
        sums, _ = model.choice_log_likelihoods([f"ทีวี {place}"], [choices], prompt=[prompt], **given)
        assert [value for value, _ in found[2 * place : 2 * place + 2]] == pytest.approx(sums[0].tolist(), abs=1e-4)
    assert not any(greedy for _, greedy in found)
    ids = {**given, "texts": ["ทีวี 0"], "prompt": ["Q:"], "max_new_tokens": 3}
    first = model.respond(**ids)[0]  # a continuation counts with its end, and this one has none after three tokens
    assert LiraLM(model, processor).loglikelihood(instances(parts, [("Q:", first), ("Q:", "A")], "loglikelihood"))[0][1] is False
    monkeypatch.setattr(type(model), "respond", lambda self, texts, **options: ["A"] * len(texts))
    assert [greedy for _, greedy in LiraLM(model, processor).loglikelihood(instances(parts, requests, "loglikelihood"))] == [True, False, True, False]
    with pytest.raises(NotImplementedError, match="perplexity"):
        LiraLM(model, processor).loglikelihood_rolling([])


@pytest.mark.parametrize("reading", ["generation", "likelihood"])
def test_lira_answers_a_whole_task(parts, folders, reading):
    found = answer(open_task("xcsqa", reading, "ur", Translations(), data=folders["xcsqa"]), Speaker(LiraLM(*parts), "lira"))
    docs = list(open_task("xcsqa", "likelihood", "ur", Translations(), data=folders["xcsqa"]).eval_docs)
    given = {"processor": parts[1], "language": "ur", "prompt_name": "query", "prompt": [doc["source"] + "\nAnswer:" for doc in docs]}
    texts = [doc["source"] for doc in docs]
    if reading == "likelihood":
        best = parts[0].choice_log_likelihoods(texts, [doc["labels"] for doc in docs], **given)[0].argmax(-1).tolist()
        wanted = sum(doc["labels"][i] == doc["answerKey"] for doc, i in zip(docs, best, strict=True)) / 6
        assert found["scores"] == {"acc,none": pytest.approx(wanted)}
    else:
        assert found["answers"] == [cut(text, ["\n"]) for text in parts[0].respond(texts, max_new_tokens=8, **given)]


def test_settings_of_the_harness_become_options_of_generate():
    assert generation_options({"until": "\n", "do_sample": False, "temperature": 0.0}) == (
        ["\n"],
        {"max_new_tokens": 256, "do_sample": False, "num_beams": 1},
    )
    until, options = generation_options({"until": ["", "x"], "do_sample": True, "temperature": 0.5, "max_gen_toks": 5})
    assert until == ["x"] and options == {"max_new_tokens": 5, "do_sample": True, "temperature": 0.5}
    assert (cut("abcabc", ["c", "b"]), cut("abc", []), cut("abc", ["z"])) == ("a", "abc", "abc")


# ---- the command -------------------------------------------------------------------------------------------------------------


def test_evaluate_answers_with_all_systems_and_goes_on_after_a_kill(folder, folders, table, tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.jsonl"
    lines = [{"text": text, "language": code, "translations": given} for text, languages in table.found.items() for code, given in languages.items()]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    given = {"data": folders["mgsm"], "translations": path, "output": tmp_path / "out", "systems": ["english_best", "lira"]}
    short = {name: replace(reading, max_tokens=6) for name, reading in BENCHMARKS["mgsm"].readings.items()}  # random weights write on and on
    monkeypatch.setitem(BENCHMARKS, "mgsm", replace(BENCHMARKS["mgsm"], readings=short))
    calls, whole = [], answer

    def dying(task, speaker):
        calls.append(task.config.task)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return whole(task, speaker)

    monkeypatch.setattr(reasoning_benchmarks, "answer", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, "mgsm", **given)
    capsys.readouterr()
    found = evaluate(folder, "mgsm", **given)
    assert len(calls) - 6 == 3 and "5 of 8 results are from" in capsys.readouterr().out
    assert found["metric"] == "accuracy, native_cot, flexible-extract" and set(found["systems"]["lira"]["languages"]) == {"bn", "th"}
    assert set(found["systems"]["lira"]["metrics"]) == {
        "native_cot, strict-match",
        "native_cot, last number",
        "direct, flexible-extract",
        "direct, remove_whitespace",
        "direct, last number",
    }
    assert found["translations"] == {"from": "table.jsonl", "digest": found["translations"]["digest"], "texts": 12, "translated": 12}
    with open(f"{folder}/results/mgsm.json") as file:
        kept = json.load(file)
    assert kept.pop("weights") and kept == found
    evaluate(folder, "mgsm", **given)
    assert len(calls) == 9


def test_a_language_model_alone_is_a_baseline(llms, folders, tmp_path):
    speakers = open_speakers(llms["qwen3-lm"], device="cpu")
    assert list(open_speakers(llms["qwen3-lm"], translated=False, device="cpu")) == ["no_translation"]
    assert list(speakers) == ["no_translation", "english_only", "english_best"] and speakers["no_translation"] is speakers["english_best"]
    found = evaluate(llms["qwen3-lm"], "xcsqa", data=folders["xcsqa"], languages=["vi"], systems=["no_translation"], output=tmp_path)
    assert found["metric"] == "accuracy, generated letter" and set(found["systems"]["no_translation"]["metrics"]) == {"likeliest letter"}
    assert found["data"]["path"] == "xcsqa" and found["measured_by"].startswith("lm_eval")


@pytest.mark.slow
def test_our_route_through_the_harness_gives_what_its_own_gives(llms, folders, tmp_path):
    """Its installed task file by its own loader and command, with nothing changed but the folder."""
    source = HARNESS / "mgsm" / "direct" / "mgsm_direct_bn.yaml"
    (tmp_path / "own.yaml").write_text(f"include: {source}\ntask: own_bn\ndataset_path: {folders['mgsm']}\n")
    speaker = open_speakers(llms["qwen3-lm"], ["no_translation"], device="cpu")["no_translation"]
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    theirs = lm_eval.simple_evaluate(
        speaker.lm, tasks=["own_bn"], task_manager=manager, num_fewshot=0, bootstrap_iters=0, gen_kwargs="max_gen_toks=256"
    )
    ours = answer(open_task("mgsm", "direct", "bn", Translations(), data=folders["mgsm"]), speaker)
    said = {sample["doc_id"]: sample["resps"][0][0] for sample in theirs["samples"]["own_bn"]}
    assert ours["answers"] == [said[i] for i in range(6)] and len(set(said.values())) > 1
    assert ours["scores"] == {key: value for key, value in theirs["results"]["own_bn"].items() if key in ours["scores"]} and len(ours["scores"]) == 2


def test_columns_are_our_languages_or_all_of_the_benchmark():
    assert (
        columns_of("mgsm") == {"bn": "bn", "th": "th"} and columns_of("xcsqa", ["ur"]) == {"ur": "ur"} and len(columns_of("xcsqa", every=True)) == 16
    )
    with pytest.raises(ValueError, match="languages: MGSM has no 'vi'; it has bn, th"):
        columns_of("mgsm", ["vi"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "mgsm", "data": "/nowhere"}, "data: '/nowhere' is no folder"),
        ({"benchmark": "mgsm", "systems": ["concat"]}, "systems: 'concat' is not known here; allowed: no_translation"),
        ({"benchmark": "xcsqa", "model": "bert"}, "model: .* is no causal language model that can be loaded"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message, folder, folders, backbones, tmp_path):
    model = backbones["t5"] if options.pop("model", None) else folder
    with pytest.raises(ValueError, match=message):
        evaluate(model, **{"data": folders[options["benchmark"]], "output": tmp_path / "out", **options})


def test_a_result_is_never_that_of_another_configuration(llms, tmp_path):
    """Of the same weights: how they are read, generated from and talked to are part of what a result is kept by."""
    digests = []
    for path, change in {"config.json": {"rms_norm_eps": 10.0}, "generation_config.json": {"repetition_penalty": 1.5}}.items():
        copy = shutil.copytree(llms["qwen3-lm"], tmp_path / f"other {path}")
        (copy / path).write_text(json.dumps(json.loads((copy / path).read_text()) | change))
        digests.append(open_speakers(str(copy), ["no_translation"], device="cpu")["no_translation"].digest)
    for template in ("{{ messages[0]['content'] }}", "{{ messages[0]['content'] }}!"):
        copy = shutil.copytree(llms["qwen3-lm"], tmp_path / f"talks {len(digests)}")
        (copy / "chat_template.jinja").write_text(template)
        digests.append(open_speakers(str(copy), ["no_translation"], device="cpu")["no_translation"].digest)
    digests.append(open_speakers(llms["qwen3-lm"], ["no_translation"], device="cpu")["no_translation"].digest)
    assert len(set(digests)) == len(digests)
