"""Whether two questions ask for the same: the guard beside the similarity of their embeddings. Pure.

Embeddings see what a question is about, and hardly what turns it around: "Is smoking allowed on the terrace?" and "Is
smoking not allowed on the terrace?" have a cosine of 0.99, "the maximum upload size" and "the minimum upload size" one of
0.94. So two questions are taken for one only where they come to the same form: the same words that carry meaning, in the
same order, and the same kind of question. What may differ is what changes nothing in an answer: case and punctuation,
articles, courtesies, how help is asked for ("How can I", "How do I", "What is the way to"), inflection by -s and -ing,
"A of B" for "B's A", digits for words, and words of a short list that always mean the same. Whatever it does not know
counts as a difference: a name, a date, a negation in any language. It errs towards asking the model; most paraphrases in
other words are not taken for the same.

The forms are those of English. Of other languages only case, punctuation and width may differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

__all__ = ["QuestionForm", "difference", "form_of", "is_of_the_moment"]

_NEGATIONS = frozenset(
    {"not", "no", "never", "none", "nothing", "nobody", "nowhere", "neither", "nor", "without", "except"}
)
_ASKING = frozenset({"how", "what", "who", "whom", "whose", "when", "where", "why"})
# "Which" is no other question than "what" where the rest is the same.
_SAME_ASKING = {"which": "what"}
_PRESENT, _PAST, _FUTURE = frozenset({"am", "are", "is", "be", "do", "does"}), frozenset({"did", "was", "were"}), "will"
_CAN = frozenset({"can", "may", "could"})
# What changes nothing where it stands in one of two questions. Prepositions do ("search for the archive", "report to HR"),
# as do "you", "me" ("Who can I call?" is not "Who can call me?") and "us", which is a country, too.
_IDLE = frozenset({"a", "an", "the", "i", "my", "we", "our", "of", "any", "please"})
# Short words that are names where they have a capital within a sentence: the US, Ms May, plan A.
_MAY_BE_NAMES = (_IDLE | _PRESENT | _PAST | _CAN | {_FUTURE}) - {"i"}
_CAPITAL = re.compile(r"(?<![.!?:,;\s-])(\s+)([A-Z][A-Za-z]*)\b")
# An article or pronoun that is the number or letter of what stands before it, and May where it is a month.
_DESIGNATION = re.compile(
    r"\b(?P<of>(?:war|type|part|phase|class|stage|level|grade|section|chapter|article|volume|group|plan|vitamin|hepatitis"
    r"|option|zone|terminal|gate|block|hall|tier|category|schedule|annex|appendix|team)\s+)(?P<sign>[ai])\b"
    r"|\b(?P<month>(?:in|of|since|until|till|by|before|after|last|next|this|from|for|to|during|early|late|mid|every"
    r"|\d+)\s+)may\b"
    r"|\bmay(?=\s+(?:the\s+)?\d)"
)
# What "A of B" does not reach beyond: "boiling point of water in Fahrenheit" is "water's boiling point in Fahrenheit".
_BOUNDS = _NEGATIONS | frozenset(
    "about above after all and as at before behind below beside between but by down during each every few first for from if"
    " in inside into last least less many more most much off on only or out outside over per since some than that through"
    " to under until up when which while with you".split()
)
_OPENINGS = re.compile(
    r"(?:(?:hi|hello|hey|dear all|thanks|thank you|please|so|ok|okay|quick question|just wondering|i wonder|i am wondering"
    r"|i was wondering|do you know|does anyone know|i (?:want|wish|need|would like) to know"
    r"|(?:(?:can|could|would|will) (?:you|somebody|someone|anyone) )?(?:please )?(?:kindly )?"
    r"(?:tell|explain|explain to|show|remind) me"
    r"|(?:(?:can|could|would) (?:you|somebody|someone) )?(?:please )?explain(?: to me)?)\b[\s,:;.!?-]*)+"
)
_CLOSINGS = re.compile(r"(?:[\s,;.!?-]*\b(?:please|thanks|thank you|thanks in advance|many thanks))+[\s.!?]*\Z")
_PHRASES = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        (r"(?<!\S)[\u2013\u2014\u2212](?=\d)", "-"),
        (r"(?<=\d) ?([ap])\.?m\b\.?", r"\1m"),
        (r"\b(can|won|shan)(?:'t)\b", r"\1 not"),
        (r"\bwon not\b", "will not"),
        (r"\bcannot\b", "can not"),
        (r"\b(\w+)n't\b", r"\1 not"),
        (r"\b(what|who|where|when|how|why|which|it|there|that|he|she)'s\b", r"\1 is"),
        (r"\bi'm\b", "i am"),
        (r"\b(\w+)'re\b", r"\1 are"),
        (r"\b(\w+)'ll\b", r"\1 will"),
        (r"\b(\w+)'ve\b", r"\1 have"),
        (r"(?<=\w)'s\b|(?<=s)'(?!\w)", ""),
        (r"\b(?:going|about) to\b", "will"),
        (r"\bshall\b", "will"),
        (r"\b(?:what|which) (?:is|are) the (?:way|method|procedure|process|steps?) (?:to|of|for)\b", "how"),
        (r"\bhow (?:can|could|do|should|may|might|would) (?:i|we|one)\b", "how"),
        (r"\bhow to\b", "how"),
        (r"\b(?:is it possible|am i able|are we able|am i allowed|are we allowed)(?: for (?:me|us))? to\b", "can i"),
        (r"\b(?:at )?(?:what|which) time\b", "when"),
        (r"\bhow much (?:does|do|is|are|will)\b(?=.*\bcosts?\b)", "what is"),
        (r"\b(?:sign|log) (?:in|on)(?: to)?\b", "login"),
        (r"\bsign(?:ing)? up\b", "register"),
        (r"\be-mail", "email"),
    )
)
# A word of another language, in which "an", "am" and "do" are none of English: German, Dutch, French, Spanish, Italian,
# Portuguese, Polish, Turkish. So is every word with a letter beyond ASCII.
_FOREIGN = frozenset(
    "der die das den dem des ein eine einen einer ist sind wird kann ich wir wie wo wann und oder nicht het een de ik kan"
    " hoe waar wanneer le la les un une du est sont je il que qui el los las una por para puedo como con del di il lo gli"
    " che per sono posso o os uma um da dos em jest czy nie jak kiedy ve bir mi ne nasil".split()
)
# Plurals that mean something else than the singular does.
_OTHER_PLURALS = frozenset(
    "arms contents customs damages directions funds glasses goods means minutes news premises savings securities terms"
    " times works".split()
)
# Always the same to whoever asks; not here: what is alike in some contexts only (bill and invoice, update and change).
_SYNONYMS = {
    word: group[0]
    for group in (
        ("price", "cost"), ("buy", "purchase"), ("bought", "purchased"), ("delete", "remove"), ("deleted", "removed"),
        ("start", "begin"), ("big", "large"), ("car", "automobile"), ("phone", "telephone"), ("movie", "film"),
        ("get", "obtain"), ("find", "locate"), ("need", "require"), ("needed", "required"), ("doctor", "physician"),
        ("change", "modify", "alter"), ("changed", "modified", "altered"), ("allowed", "permitted"), ("help", "assist"),
        ("photo", "photograph"), ("tv", "television"), ("bicycle", "bike"), ("information", "info"),
        ("child", "children", "kid"), ("maximum", "max", "maximal"), ("minimum", "min", "minimal"), ("person", "people"),
        ("whom", "who"), ("login", "logon"), ("2", "two"), ("3", "three"), ("4", "four"), ("5", "five"), ("6", "six"),
        ("7", "seven"), ("8", "eight"), ("9", "nine"), ("10", "ten"), ("11", "eleven"), ("12", "twelve"),
    )
    for word in group[1:]
}  # fmt: skip
# English, German, French, Spanish, Italian, Portuguese and Dutch.
_MOMENT = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|nowadays|currently|current|latest|newest|recent|recently|so far|ago"
    r"|(?:this|next|last|past|coming|previous) (?:\w+ )?"
    r"(?:hour|day|night|morning|afternoon|evening|week|weekend|month|quarter|year|term|season|monday|tuesday|wednesday|thursday|friday|saturday|sunday)s?"
    r"|heute|morgen|gestern|jetzt|derzeit|aktuell\w*|aujourd'hui|demain|hier|maintenant|actuel\w*|hoy|mañana|ayer|ahora"
    r"|actual\w*|oggi|domani|ieri|adesso|attual\w*|hoje|amanhã|ontem|agora|atual\w*|vandaag|gisteren|nu)\b"
)
_TOKEN = re.compile(r"(?<!\S)-\d+(?:[.,:/]\d+)*|\d+(?:[.,:/]\d+)*(?!\w)|\w+|[^\w\s.,;:?!'\"()\[\]{}…–—¿¡-]")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")


@dataclass(frozen=True, slots=True)
class QuestionForm:
    """What is left of a question.

    Attributes:
        kind: what is asked: how, what, who, whose, when, where, why; whether, where it is to be answered by yes or no; empty
            where it is no sentence that asks.
        tense: past or future; empty for anything else.
        possible: whether it asks for what can be; not told apart of how and where.
        words: what it is about, in order.
    """

    kind: str
    tense: str
    possible: bool
    words: tuple[str, ...]


def form_of(question: str) -> QuestionForm:
    """Return the form of ``question``, of up to a few thousand characters: the time is proportional to them."""
    text = _CAPITAL.sub(_named, unicodedata.normalize("NFKC", question).strip())
    text = _DESIGNATION.sub(_designated, text.casefold().replace("\u2019", "'"))
    text = _OPENINGS.sub("", text, count=1) if _OPENINGS.match(text) else text
    text = _CLOSINGS.sub("", text)
    for pattern, into in _PHRASES:
        text = pattern.sub(into, text)
    tokens = [_SAME_ASKING.get(token, token) for token in _TOKEN.findall(text)]
    if any(token in _FOREIGN or (token.isalpha() and not token.isascii()) for token in tokens):
        return QuestionForm("", "", False, tuple(tokens))
    kind, begins = "", next(iter(tokens), "")
    asking = next((token for token in tokens if token in _ASKING), None)
    if begins in _PRESENT | _PAST | _CAN | {_FUTURE, "if", "whether", "has", "have", "had", "should", "must", "would"}:
        kind = "whether"
        tokens = tokens[1:] if begins in ("if", "whether") else tokens
    elif asking is not None:
        kind = "who" if asking == "whom" else asking
        tokens.remove(asking)
    else:
        kind = "what"  # "The capital of France?" and "Tell me the capital of France" ask what it is
    found = set(tokens)
    tense = "past" if found & _PAST else "future" if _FUTURE in found else ""
    possible = kind not in ("how", "where") and bool(found & _CAN)
    idle = _IDLE | _PRESENT | _PAST | _CAN | {_FUTURE}
    return QuestionForm(
        kind, tense, possible, tuple(_word(each) for each in _of_turned(tokens, idle) if each not in idle)
    )


def is_of_the_moment(question: str) -> bool:
    """Return whether an answer depends on when ``question`` is asked: it speaks of today, next week, the latest."""
    text = unicodedata.normalize("NFKC", question).casefold().replace("\u2019", "'")
    return _MOMENT.search(text) is not None


def difference(one: str, other: str) -> str | None:
    """Return what tells two questions apart: ``kind``, ``tense``, ``numbers``, ``negation``, ``words`` or ``order``; None
    where they ask for the same.
    """
    a, b = form_of(one), form_of(other)
    if a == b and (a.words or one == other):  # of what is nothing but idle words, nothing is known
        return None
    if Counter(filter(_is_number, a.words)) != Counter(filter(_is_number, b.words)):
        return "numbers"
    if Counter(_NEGATIONS.intersection(a.words)) != Counter(_NEGATIONS.intersection(b.words)):
        return "negation"
    if Counter(a.words) != Counter(b.words):
        return "words"
    if not a.words:
        return "words"
    if a.words != b.words:
        return "order"
    return "kind" if a.kind != b.kind else "tense"


def _named(found: re.Match[str]) -> str:
    """Return a word with a capital within a sentence; one that would be idle without it is marked as a name."""
    return f"{found[1]}{found[2]}_" if found[2].casefold() in _MAY_BE_NAMES else found[0]


def _designated(found: re.Match[str]) -> str:
    """Return what a letter or a month stands in, marked as a name."""
    return f"{found['of']}{found['sign']}_" if found["of"] else f"{found['month'] or ''}may_"


def _is_number(word: str) -> bool:
    return any(map(str.isdigit, word))


def _of_turned(tokens: list[str], idle: frozenset[str]) -> list[str]:
    """Return ``tokens`` with "price of the annual plan" as "annual plan price": as it stands without "of"."""
    turned: list[str] = []
    bounds, position = idle | _BOUNDS, 0
    while position < len(tokens):
        if tokens[position] != "of":
            turned.append(tokens[position])
            position += 1
            continue
        start = len(turned)
        while start and turned[start - 1] not in bounds:
            start -= 1
        position += 1
        while position < len(tokens) and tokens[position] in ("the", "a", "an", "my", "our"):
            position += 1
        end = position
        while end < len(tokens) and tokens[end] not in bounds:
            end += 1
        turned[start:start] = tokens[position:end]
        position = end
    return turned


def _word(token: str) -> str:
    """Return ``token`` without its inflection by -s (Harman 1991, "How Effective Is Suffixing?", the S stemmer) and -ing.

    The past form stays: "Who hosts it?" is not "Who hosted it?", nor "Can I invite?" "Can I be invited?".
    """
    if _THOUSANDS.fullmatch(token):
        return token.replace(",", "")
    if not token.isascii() or not token.isalpha() or len(token) < 3:
        return _SYNONYMS.get(token, token)
    if token in _OTHER_PLURALS:
        return token
    word = _SYNONYMS.get(token, token)
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        word = f"{word[:-3]}y"
    elif word.endswith("oes"):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("us", "ss", "is")):
        word = word[:-1]
    word = _SYNONYMS.get(word, word)
    stem = word[:-3]
    if word.endswith("ing") and len(stem) >= 3 and re.search("[aeiouy]", stem):
        for base in (stem, f"{stem}e", stem[:-1]):  # call, require, shop
            if base in _SYNONYMS:
                return _bare(_SYNONYMS[base])
        return _bare(stem)
    return _bare(word)


def _bare(word: str) -> str:
    """Return ``word`` without what -ing takes or adds at its end: charge, charging; ship, shipping."""
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] in "bdfglmnprt" else word
