"""What a study found, as lines of text."""

from __future__ import annotations


def render_study(found: dict) -> list[str]:
    """The lines that `lira-hf study` prints; found as in the study's file."""
    return [f"{found['benchmark']}, nDCG@10, {len(found['seeds'])} seeds", *LINES[found["study"]](found)]


def interval(one: dict, sign: str = "+") -> str:
    low, high = one["interval"]
    return f"{one['mean']:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def ablation(found: dict) -> list[str]:
    lines = []
    for name, system in sorted(found["systems"].items(), key=lambda item: -item[1]["average"]):
        against = found["differences"].get(name)
        lines.append(f"{name:30s}{system['average']:7.2f}" + (f"   against {found['baseline']} {interval(against)}" if against else ""))
    return lines


def noise(found: dict) -> list[str]:
    lines = []
    for kind, systems in found["curves"].items():
        lines.append(f"{kind}, by percent of corrupted rows: " + "  ".join(f"{point['level']:g}" for point in systems["lira"]))
        lines += [f"  {name:28s}" + "  ".join(f"{point['mean']:.1f}" for point in points) for name, points in systems.items()]
        half = found["at_half"][kind]
        said = "less" if half["less_than_half"] else "not surely less"
        lines.append(
            f"  at 50 % lira loses {half['lost']['lira']:.1f}, english_trained {half['lost']['english_trained']:.1f}: {said} than half; "
            f"half of the latter minus the former {interval(half['half_of_english_minus_lira'])}"
        )
    return lines


def few_shot(found: dict) -> list[str]:
    lines = ["percent of the training rows: " + "  ".join(f"{percent:g}" for percent in found["percents"])]
    lines += [f"  {system:28s}" + "  ".join(f"{point['mean']:.1f}" for point in points) for system, points in found["curves"].items()]
    lines.append(f"  {found['floor']['system']:28s}{found['floor']['mean']:.1f}")
    for control, points in found["lira_above"].items():
        lines.append(f"  lira above {control}: " + "  ".join(interval(point) for point in points))
    return lines


def backbones(found: dict) -> list[str]:
    lines = []
    for name, pair in found["pairs"].items():
        kinds = " + ".join(f"{one['kind']} {one['width']}" for one in pair["backbones"].values())
        lines.append(f"{name}: {kinds}; lira {pair['systems']['lira']['average']:.2f}")
        lines += [f"  above {system:28s}{interval(one)}" for system, one in pair["differences"].items()]
    return lines


LINES = {"ablation": ablation, "noise": noise, "few-shot": few_shot, "backbones": backbones}
