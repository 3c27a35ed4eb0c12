"""What stands around a candidate and says that it is a person, or that it is not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.guardrails.scanners.pii import cues
from services.guardrails.scanners.pii.candidates import Candidate
from services.guardrails.scanners.pii.words import Word

_LABEL = re.compile(
    r"(?i)(?<![^\W\d_])(?:contact|attn\.?|attention|name|from|to|cc|author|by|manager|signed|customer|client|patient"
    r"|guest|passenger"
    r"|tenant|owner|applicant|employee|witness|recipient|sender|nom|nombre|nome|beneficiary)\s?[:=]\s?$|(?:attn\.?"
    r"|c/o) ?$"
)
_NAME_IN_SENTENCE = re.compile(
    r"(?i)(?<![^\W\d_])names?(?![^\W\d_])[^.!?\n]{0,40} (?:to|as|is|be|into|under|should read) $"
)
_HOUSE_NUMBER = re.compile(r",?[ ]\d{1,5}[a-zA-Z]?(?![\w.-])")
_MOTION = re.compile(
    r"(?i)(?<![^\W\d_])(?:(?:mov(?:e|es|ed|ing)|return(?:s|ed|ing)?|go(?:es|ing)?|went|com(?:e|es|ing)|came"
    r"|travel(?:s|led|ing|ling)?|fl(?:y|ies|ew|ying)"
    r"|driv(?:e|ing)|drove|trips?|flights?|originally|originates?|visit(?:s|ed|ing)?|live[sd]?|living|capital|city"
    r"|town|village|country|university|port|north|south|east|west"
    r"|is|was|am|are|'m|’m)(?: here| back| over)?,? (?:to|from|of|in)|home city|city of|town of|visit(?:ed|ing)?"
    r"|grew up in|born in)(?: the)? $"
)
_IN_PLACE = frozenset(
    {
        "company",
        "firm",
        "brand",
        "band",
        "in",
        "at",
        "near",
        "into",
        "within",
        "across",
        "throughout",
        "inside",
        "outside",
        "around",
    }
)
_ADDRESSED = frozenset("can could would will please i you are what how do did have thanks where when why is".split())
_INTRODUCING = frozenset({
    ("i", "am"), ("this", "is"), ("it", "is"), ("am", "called"), ("is", "called"), ("was", "called"), ("named", "him"),
    ("named", "her"), ("me", "as"), ("it's", "me"),
})  # fmt: skip
_AFTER_PAIRS = frozenset({
    ("is", "from"), ("had", "given"), ("has", "given"), ("will", "be"), ("was", "born"), ("is", "a"), ("was", "a"),
    ("has", "been"), ("can", "be"), ("is", "my"), ("was", "my"), ("and", "i"), ("moved", "here"),
})  # fmt: skip
_HUMAN_PAIRS = frozenset({("is", "from"), ("had", "given"), ("has", "given"), ("was", "born")})
_ENROL = frozenset("add adding invite inviting register nominate appoint hire remove list".split())
_SPEAKING = frozenset(
    "speak speaks spoke speaking talk talks talked talking chat chatted chatting meet met meeting write wrote".split()
)
_FIRM_LINE = re.compile(r"[\w'’-]+, [\w'’-]+,? (?:and|&) [\w'’-]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """`strong`: a name must stand here; `personal`: a person does; `medium`: one may. `corporate` is personal evidence
    that companies share ("said"). `elsewhere`: a place or part of an address stands here.
    """

    strong: bool = False
    personal: bool = False
    corporate: bool = False
    medium: bool = False
    elsewhere: bool = False


def gather(text: str, words: Sequence[Word], candidate: Candidate) -> Evidence:
    """Everything that the text around the candidate says."""
    strong = (
        candidate.title
        or _salutation(text, words, candidate)
        or _named(text, words, candidate)
        or _signature(text, words, candidate)
    )
    before_personal, before_medium = _before(text, words, candidate)
    personal, corporate, after_medium = _after(text, words, candidate)
    return Evidence(
        strong,
        personal or before_personal,
        corporate,
        before_medium or after_medium,
        not strong and _elsewhere(text, words, candidate),
    )


def starts_line(text: str, start: int) -> bool:
    """Whether nothing but a blank stands before it on its line."""
    return start == 0 or text[start - 1] == "\n" or text[max(0, start - 2) : start] == "\n "


def is_line(text: str, start: int, end: int) -> bool:
    """Whether the stretch is all that its line has, in a text of several."""
    alone = starts_line(text, start) and text[end : end + 2].lstrip(" .,")[:1] in ("", "\n")
    return alone and (text.startswith("\n", end + 1) or "\n" in text[max(0, start - 200) : end + 200])


def in_firm_line(text: str, start: int, end: int) -> bool:
    """Whether the line is nothing but "A, B and C", as firms are called."""
    left, right = text.rfind("\n", max(0, start - 60), start) + 1, text.find("\n", end, end + 60)
    if left == 0 and start > 60:
        return False
    line = text[left : right if right >= 0 else end + 60].strip()
    return len(line) < 100 and _FIRM_LINE.fullmatch(line) is not None and "\n" in text


def _salutation(text: str, words: Sequence[Word], candidate: Candidate) -> bool:
    """ "Dear Ann", "Good morning Bob": a sentence opens with a greeting, and the name follows."""
    at = candidate.first - 1
    while at >= 0 and candidate.first - at < 3 and words[at].folded in cues.TITLES | {"there", "again"}:
        at -= 1
    if at < 0:
        return False
    before, first = words[at], words[candidate.first]
    gap = text[before.end : first.start]
    if before.folded not in cues.GREETINGS or len(gap) > 14 or any(char in gap for char in "\n.!?;:"):
        return False
    opens = before.opening or (at > 0 and words[at - 1].folded in ("good", "sehr", "very", "my", "and", "oh"))
    return (opens or before.caseless) and (first.given or first.family or first.unknown)


def _named(text: str, words: Sequence[Word], candidate: Candidate) -> bool:
    """ "my name is", "contact:", "my wife", "I'm": the one to three words before the name."""
    first = words[candidate.first]
    nameable = first.given or first.family or first.unknown
    if _LABEL.search(text[max(0, first.start - 16) : first.start]):
        return nameable
    if candidate.first == 0:
        return False
    gap = text[words[candidate.first - 1].end : first.start]
    if len(gap) > 4 or gap.strip(" :=-\"“'(*_") not in ("", "s", "’s") or "\n\n" in gap:
        return False
    phrase = ""
    for before in reversed(words[max(0, candidate.first - 3) : candidate.first]):
        phrase = f"{before.folded}{chr(39) + 's' if before.possessive else ''} {phrase}".strip()
        if phrase in cues.STRONG_BEFORE:
            return nameable or not first.common
    previous = words[candidate.first - 1].folded.replace("’", "'")
    pair = (words[candidate.first - 2].folded.replace("’", "'"), previous) if candidate.first > 1 else ("", previous)
    if (previous == "i'm" or pair in _INTRODUCING) and gap == " ":
        listed = first.sure_given or (first.family and not first.place and not first.common)
        return listed and first.folded not in cues.NOT_NAMES
    longer = candidate.last - candidate.first > 1
    return longer and nameable and _NAME_IN_SENTENCE.search(text[max(0, first.start - 60) : first.start]) is not None


def _signature(text: str, words: Sequence[Word], candidate: Candidate) -> bool:
    """A name under, or after, "Best regards,"."""
    first = words[candidate.first]
    lead = text[max(0, first.start - 40) : first.start].rstrip(" ")
    if not lead.endswith(("\n", ",")):
        return False
    closing = re.split(r"\n|[.!?] ", lead.rstrip(" \n,.!–-"))[-1].strip().lower()
    if closing.replace("ü", "u").replace("ä", "a") not in cues.CLOSINGS:
        return False
    rest = text[words[candidate.last - 1].end :][:2].strip(" .")
    return (rest == "" or rest[0] in "\n,(") and (first.given or first.family or first.unknown)


def _before(text: str, words: Sequence[Word], candidate: Candidate) -> tuple[bool, bool]:
    """(personal, medium) by the word before."""
    if not candidate.first:
        return False, False
    before, first = words[candidate.first - 1], words[candidate.first]
    gap = text[before.end : first.start]
    if len(gap) > 3 or gap.strip(" :,\"“'") or "\n" in gap:
        return False, False
    folded = before.folded.replace("’", "'")
    role = folded.rsplit("-", 1)[-1]
    after = words[candidate.last] if candidate.last < len(words) else None
    enrolled = (
        folded in _ENROL and after is not None and after.folded in ("as", "to") and candidate.last - candidate.first > 1
    )
    spoken_to = candidate.first > 1 and folded in ("to", "with") and words[candidate.first - 2].folded in _SPEAKING
    personal = role in cues.PERSONAL_BEFORE or folded.startswith("ex-") or enrolled or spoken_to
    return personal, role in cues.MEDIUM_BEFORE


def _after(text: str, words: Sequence[Word], candidate: Candidate) -> tuple[bool, bool, bool]:
    """(personal, corporate, medium) by the words after."""
    first, last = words[candidate.first], words[candidate.last - 1]
    tail = text[last.end : last.end + 3]
    if tail.startswith(":") and starts_line(text, first.start):
        return tail[1:2] in (" ", '"', "“"), False, True
    if candidate.last == len(words):
        return False, False, False
    after = words[candidate.last]
    gap = text[last.end : after.start]
    if last.possessive:
        return after.folded in cues.KINSHIP_AFTER, False, True
    if gap == ", ":
        return first.opening and (first.given or first.family) and after.folded in _ADDRESSED, False, False
    if gap != " " or after.capital:
        return False, False, False
    pair = (after.folded, words[candidate.last + 1].folded) if candidate.last + 1 < len(words) else (after.folded, "")
    personal = after.folded in cues.PERSONAL_AFTER or pair in (
        ("is", "from"),
        ("had", "given"),
        ("has", "given"),
        ("was", "born"),
    )
    return (
        personal,
        after.folded in cues.CORPORATE_AFTER,
        pair in _AFTER_PAIRS or after.folded in ("is", "was", "has", "had", "will", "and"),
    )


def _elsewhere(text: str, words: Sequence[Word], candidate: Candidate) -> bool:
    """Whether a number, a kind of street or "in" makes it a place."""
    first, last = words[candidate.first], words[candidate.last - 1]
    lead = text[max(0, first.start - 32) : first.start]
    if len(lead) > 1 and lead[-1] in " -" and lead[-2].isdigit():
        return True
    if _HOUSE_NUMBER.match(text, last.end):
        return True
    if candidate.last < len(words):
        after = words[candidate.last]
        if text[last.end : after.start] == " " and after.folded in cues.STREET_TYPES:
            return True
    if (
        candidate.first
        and words[candidate.first - 1].folded in _IN_PLACE
        and lead.endswith(" ")
        and not last.possessive
    ):
        return True
    return _MOTION.search(lead) is not None and not last.possessive
