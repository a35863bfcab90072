"""The seven languages, and English, in one table: every other module asks here and never spells a code twice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """One language. `code` is ours and BCP-47's; `flores` is the code of FLORES, Belebele and NLLB; `mteb` is mteb's."""

    code: str
    name: str
    flores: str
    mteb: str
    country: str  # ISO 3166-1 alpha-2, "" for the pivot
    script: str  # ISO 15924


LANGUAGES = {
    language.code: language
    for language in (
        Language("vi", "Vietnamese", "vie_Latn", "vie-Latn", "VN", "Latn"),
        Language("th", "Thai", "tha_Thai", "tha-Thai", "TH", "Thai"),
        Language("id", "Indonesian", "ind_Latn", "ind-Latn", "ID", "Latn"),
        Language("ms", "Malay", "zsm_Latn", "zsm-Latn", "MY", "Latn"),
        Language("ur", "Urdu", "urd_Arab", "urd-Arab", "PK", "Arab"),
        Language("bn", "Bengali", "ben_Beng", "ben-Beng", "BD", "Beng"),
        Language("fil", "Filipino", "tgl_Latn", "fil-Latn", "PH", "Latn"),  # FLORES files Filipino under Tagalog
    )
}
ENGLISH = Language("en", "English", "eng_Latn", "eng-Latn", "", "Latn")


def check_languages(codes: list[str] | None) -> list[str]:
    """The codes, or all seven for None. Raises ValueError that names the first unknown one."""
    if codes is None:
        return list(LANGUAGES)
    for code in codes:
        if code not in LANGUAGES:
            raise ValueError(f"languages: {code!r} is not known; allowed: {', '.join(LANGUAGES)}")
    if len(set(codes)) != len(codes) or not codes:
        raise ValueError(f"languages: {codes!r} must name at least one language, and none twice")
    return list(codes)
