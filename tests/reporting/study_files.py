"""Files of studies as lira_hf.evaluation.studies writes them, with numbers that are easily told apart."""

from __future__ import annotations

from lira_hf.reporting import results

CODES, SLICES = ("th", "vi"), ("clean", "typo")


def bootstrapped(mean: float, width: float = 1.5) -> dict:
    one = {"mean": mean, "interval": [round(mean - width, 4), round(mean + width, 4)]}
    return one | {"languages": {code: dict(one) for code in CODES}}


def compared(mean: float) -> dict:
    return bootstrapped(mean) | {"slices": {name: bootstrapped(mean) for name in SLICES}}


def flat(mean: float) -> dict:
    return {"mean": mean, "interval": [mean - 0.7, mean + 0.9], "seeds": [mean - 0.1, mean, mean + 0.1]}


def system(average: float) -> dict:
    return {"languages": dict.fromkeys(CODES, average), "average": average, "slices": dict.fromkeys(SLICES, average)}


def headed(name: str, systems: dict, **more) -> dict:
    found = results(systems, benchmark="LazRetrieval (synthetic), tiny backbones", model="lira", seeds=[0, 1, 2], split="test")
    return found | {"study": name, "queries": dict.fromkeys(CODES, 320), "training_rows": 4480, "recipe": {}} | more


def ablation() -> dict:
    drops = {"concat": -3.5, "without_llm_critic": -2.25, "without_queues": 0.5, "without_translation": -17.0, "without_multilingual_encoder": -6.75}
    same = {"without_translation": "multilingual_trained", "without_multilingual_encoder": "english_trained"}
    systems = {name: system(81.5 + drop) for name, drop in drops.items()} | {"lira": system(81.5)}
    arms = {name: {"fields": {}, "anchoring": {}, "same_as": same.get(name)} for name in drops if name != "concat"}
    return headed("ablation", systems, baseline="lira", arms=arms, differences={name: compared(drop) for name, drop in drops.items()})


def noise() -> dict:
    levels, slopes = [0.0, 50.0, 100.0], {"concat": 0.3, "english_trained": 0.4, "lira": 0.1}

    def curve(slope: float) -> list[dict]:
        return [{"level": level, **flat(80 - slope * level), "lost": flat(slope * level)} for level in levels]

    spared = {"mixed": bootstrapped(5.0), "wrong_type": bootstrapped(0.5)}
    at_half = {
        kind: {
            "lost": {"lira": 5.0, "english_trained": 20.0},
            "ratio": 0.25,
            "half_of_english_minus_lira": one,
            "less_than_half": one["interval"][0] > 0,
        }
        for kind, one in spared.items()
    }
    return headed(
        "noise", {name: system(80.0) for name in slopes}, levels=levels, kinds={"wrong_type": {"wrong_type": 1.0}},
        curves={kind: {name: curve(slope) for name, slope in slopes.items()} for kind in spared}, at_half=at_half,
        query_noise={name: {kind: bootstrapped(3.25) for kind in SLICES} for name in ("concat", "english_trained")},
    )  # fmt: skip


def few_shot() -> dict:
    percents, bases = [1.0, 10.0, 100.0], {"lira": 78.0, "english_trained": 70.0, "multilingual_trained": 61.0}
    curves = {
        name: [{"percent": percent, "rows": int(44.8 * percent), **flat(base + place)} for place, percent in enumerate(percents)]
        for name, base in bases.items()
    }
    above = {name: [{"percent": percent, **compared(78 - base)} for percent in percents] for name, base in bases.items() if name != "lira"}
    return headed(
        "few-shot", {"concat": system(77.5)}, percents=percents, steps={"1": 30}, curves=curves, floor={"system": "concat", **flat(77.5)}, lira_above=above,
        above_everywhere={"english_trained": True, "multilingual_trained": False},
    )  # fmt: skip


def backbones() -> dict:
    one = {"kind": "bert", "layers": 2, "width": 128, "parameters": 699264}
    averages = {"concat": 77.5, "english_trained": 74.5, "lira": 81.5}
    pair = {
        "backbones": {"multilingual": one, "english": one | {"kind": "qwen3"}}, "systems": {name: system(average) for name, average in averages.items()},
        "differences": {name: compared(81.5 - average) for name, average in averages.items() if name != "lira"},
    }  # fmt: skip
    return headed("backbones", {}, pairs={"own": pair, "wide": pair})


STUDIES = {"ablation": ablation, "noise": noise, "few_shot": few_shot, "backbones": backbones}
