"""Postal addresses by the shapes that countries write them in, post codes, and what follows "lives at"."""

import re
from collections.abc import Iterator

from services.guardrails.findings import Span
from services.guardrails.scanners.pii.anchors import NAME_WORD, WORD_START, Anchor, around, before, context_words

STREET_SCORE = 0.7
NAMED_STREET_SCORE = 0.85
"""Where the text says that it is an address."""
WEAK_STREET_SCORE = 0.3

_STREET_TYPE = (
    r"(?:Streets?|Avenues?|Roads?|Boulevard|Lanes?|Drives?|Courts?|Squares?|Terrace|Parkway|Highway|Circle|Crescent"
    r"|Close|Place"
    r"|Grove|Gardens?|Mews|Trail|Plaza|Alley|Turnpike|Esplanade|Parade|Quay|Wharf|Hill|Row|Way|Walk|Loop|Cove|Ridge"
    r"|Rise|View"
    r"|Crossing|Green|Park|Path|Point|Run|Vale|Bypass|Heights|Manor|Meadows?|Pike|Expressway|Freeway|Embankment"
    r"|St|Ave|Av|Rd|Blvd|Ln|Dr|Ct|Sq|Ter|Pkwy|Hwy|Cir|Cres|Pl|Trl|Xing|Expy|Gdns)"
)
_WORD_OR_ORDINAL = rf"(?:{NAME_WORD}|\d{{1,3}}(?:st|nd|rd|th)|[NSEW]\.?)"
_NUMBER = r"\d{1,6}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
_PREFIX_TYPE = (
    r"(?:Rua|Rue|rue|Via|via|Viale|Piazza|Piazzale|Calle|calle|C/|Avenida|avenida|Av\.|Avda\.?|Plaza|Paseo|Travessa"
    r"|Praça|Largo|Corso"
    r"|Vicolo|Strada|Str\.|Chemin|chemin|Allée|allée|Avenue|avenue|Boulevard|boulevard|Bd|Place|place|Impasse|impasse"
    r"|Quai|quai|Route"
    r"|route|Cours|Passage|Faubourg|ul\.|Ul\.|ulica|ulice|al\.|os\.|nám\.|náměstí|Carrer|Ronda|Camino|Estrada|Rúa"
    r"|Cesta|Trg|Bulevardul"
    r"|Jalan|Jl\.|Calea|Rruga|Contrada|Località|Urbanización|Carretera|Ctra\.|Alameda|Rambla|Beco|Rodovia|Λεωφόρος"
    r"|Οδός|улица|ул\.|проспект|пр\.)"
)
_LINKS = (
    r"(?:(?:de|da|do|dos|das|di|del|della|delle|dei|la|le|les|el|los|las|du|des|von|van|der|den|het|de la|d['’]|l['’]"
    r"|e|y|i|and|São|St\.)\s?)"
)
_SUFFIX_TYPE = (
    r"(?:straße|strasse|str\.|gasse|weg|allee|platz|ring|damm|ufer|steig|stieg|graben|markt|hof|straat|laan|plein"
    r"|gracht|kade|dijk|singel"
    r"|pad|dreef|vej|vænget|gade|stræde|allé|torv|bakken|parken|toften|marken|haven|lunden|engen|väg|vägen|gatan|gata"
    r"|gränd|stigen|torget"
    r"|backen|veien|vegen|vei|gate|gaten|katu|kuja|tie|polku|raitti|rinne|kaari|ranta|penger|mäki|piha|utca|útja)"
)
_SEPARATE_SUFFIX = (
    r"(?:u\.|út|utca|tér|krt\.|körút|köz|sétány|ul\.|ulica|ulice|třída|tř\.|nám\.|náměstí|út[jc]a|sok\.|Cad\.|Caddesi"
    r"|Sokak|Sk\.|Street|Straße|Strasse)"
)
_UNIT = r"(?:Suite|Ste\.?|Apartment|Apt\.?|Unit|Flat|Floor|Room|Rm\.?|Building|Bldg\.?|Lot)"

_SHAPES = (
    ("street", rf"{_NUMBER}\s+(?:{_WORD_OR_ORDINAL}[ ]){{1,5}}{_STREET_TYPE}\b\.?"),
    ("street_of",
        rf"(?:{_NUMBER}\s+)?{_PREFIX_TYPE}\s?{_LINKS}{{0,3}}{NAME_WORD}(?:[ -]{_LINKS}{{0,2}}{NAME_WORD}){{0,4}}"
        r",?\s+(?:n[.º°]{1,2}\s?)?\d{1,5}[A-Za-z]?\b"),
    ("numbered_street_of",
        r"\d{1,4}(?: ?bis| ?ter)?,? (?:rue|avenue|boulevard|place|chemin|allée|impasse|quai|route|cours|passage"
        r"|square|Rue|Avenue|Boulevard|Place|Chemin|Allée|Impasse|Quai|Route|Via|Rua|Calle)"
        rf" {_LINKS}{{0,3}}{NAME_WORD}(?:[ -]{_LINKS}{{0,2}}{NAME_WORD}){{0,4}}"),
    ("compound_street",
        rf"\p{{Lu}}[\pL-]*(?: \p{{Lu}}[\pL-]*){{0,2}}{_SUFFIX_TYPE} ?\d{{1,4}}(?: ?[a-zA-Z]\b)?(?:[-/]\d{{1,4}})?"),
    ("capital_type_street", r"(?:\p{Lu}[\pL.-]*[ -]){1,3}(?:Straße|Strasse|Str\.|Allee|Platz|Weg|Ring|Damm|Ufer"
        r"|Gasse) \d{1,4}(?: ?[a-zA-Z]\b)?"),
    ("article_street", rf"(?:Am|Im|Zum|Zur|An der|An den|Auf der|Auf dem|Unter den"
        rf"|In der) {NAME_WORD}(?: {NAME_WORD})? \d{{1,4}}[a-z]?"),
    ("suffix_street",
        rf"\p{{Lu}}[\pL-]*(?: (?:and |\p{{Lu}}[\pL-]*)){{0,3}} {_SEPARATE_SUFFIX},? \d{{1,4}}(?:/\d{{1,4}})?\.?"),
    ("po_box",
        r"(?i:p\.? ?o\.? ?box|postfach|post office box|apartado(?: de correos)?|casilla|bo[iî]te postale|bp) \d{1,6}"
        r"|(?i:rr) \d{1,3},? (?i:box) \d{1,5}"),
    ("military",
        r"(?i:(?:psc|cmr|unit|box) \d{1,5},? box \d{1,5},?\s+[adf]po,? a[aep],? \d{5}(?:-\d{4})?|(?:uss|usns|usnv"
        r"|usnv|usss|uscgc) \pL+\s+[fad]po,? a[aep],? \d{5})"),
    ("unit", rf"(?i:{_UNIT}) ?#?\d{{1,5}}[A-Za-z]?\b"),
)  # fmt: skip
_LOWER_STREET = (
    r"(?i)\b\d{1,6} (?:(?:[nsew]|north|south|east|west)\.? )?(?:[\pL'’.]{2,20} |\d{1,3}(?:st|nd|rd|th) ){1,3}"
    r"(?:street|avenue|road|boulevard|lane|drive|court|terrace|parkway|highway|crescent|st|ave|rd|blvd|ln|dr|ct)\b\.?"
)
_NO_STREET_NAME = frozenset(
    "a an the on in of at to down up from per by for with and or out this that these each every my your his her its "
    "our their is are "
    "was were will would can people persons cars minutes minute hours hour miles mile km meters metres days day "
    "years year steps ways "
    "times more less than no not any some other different new old".split()
)
_TRIGGER = (
    rf"(?i){WORD_START}(?:(?:live[sd]?|living|reside[sd]?|residing|staying|stay(?:s|ed)?) (?:\pL+ )?(?:at|on|in)"
    r"|(?:my|his|her|our|your|their|home|billing|shipping|mailing|postal|delivery|street|new|old|work|the|current"
    r"|residential|full) address(?: is| was| to| with|:| at)*"
    r"|address(?:es)?(?: is|:| line 1:)|addressed to|(?:office|store|shop|restaurant|clinic|school|branch|house|home"
    r"|flat|headquarters|hq|place|property|party|venue|store|hotel)s?"
    r" (?:is|are|was|were)(?: located| situated)? (?:at|on|in)|located (?:at|on|in)|situated at|meet(?:ing)? (?:me"
    r"|you|us|him|her|them|up)?\s?(?:at|on)|see you at"
    r"|deliver(?:ed|y)?(?: it| this| them)? to|sen[dt](?: \pL+){1,4} to|ship(?:ped)?(?: it| this| them)? to"
    r"|arrived? at|mail(?:ed)? to|moved to|moving to"
    r"|(?:office|home|house|place|shop|store|flat|apartment|warehouse) at|drop (?:\pL+ )?off at"
    r"|pick (?:\pL+ )?up (?:at|from)|come to|stop at|residence at|(?:it's|it is) (?:in|at|on)|this be sent to\? user:"
    r"|corner of|visit us at|based at|headquartered at"
    r"|(?:street|station|bus|entrance) is (?:on|in|at)|enter on|refers to)\s*[:\"'“]?\s*"
)
# What such a trigger is followed by when it is an address: words with capitals and a house number before or after them.
_PLACE_WORD = r"(?:[^\W\d_][\w'’.-]*)"
_CHUNK = re.compile(
    rf"(?:the corner of )?((?:#?\d{{1,6}}[\w/-]{{0,5}},?\s+)?(?:(?:de|da|do|di|la|le|du|des|van|von|der|den|and|of"
    rf"|the)\s+|{_PLACE_WORD},?\s+){{0,5}}?"
    rf"{_PLACE_WORD},?\s+\d{{1,5}}[a-zA-Z]?(?:/\d{{1,4}})?\b\.?"
    rf"|\d{{1,6}}[\w/-]{{0,5}}\s+{_PLACE_WORD}(?:[ -]{_PLACE_WORD}){{0,4}})"
)
_CITY = r"[^\W\d_a-z][\w'’.-]*(?:[ -][^\W\d_a-z][\w'’.-]*){0,2}"
_POST_CODE = (
    r"(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d|(?:[A-Z]{1,2}[- ])?\d{4,5}(?:-\d{3,4})?"
    r"|\d{4} [A-Z]{2}|\d{2}-\d{3}|\d{3} \d{2})\b"
)
_NO_PLACE = re.compile(
    r"(?i)(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.? \d|(?:on |the )?(?:mon|tues|wednes|thurs"
    r"|fri|satur|sun)day|"
    r"(?:during|since|until|before|after|in|by|around|page|chapter|version|step|level|part|number|day|week|question"
    r"|figure|table)\b"
)
_TAIL = re.compile(
    rf"/\d{{1,4}}\b|(?:,\s*|\s*\n\s*|\s+)(?:(?i:{_UNIT})\s?#?\s?\w{{1,6}}|\d{{1,2}}[ºª°](?: ?[A-Z]\b)?"
    rf"|{_CITY},?\s+{_POST_CODE}(?!\s*\d)|{_POST_CODE}(?:\s+{_CITY})?(?!\s*\d))"
)
_CITY_TAIL = re.compile(
    rf"(?:,\s*|\s*\n\s*){_CITY}(?=,\s*(?:[A-Z]{{2}}\s+)?\d{{4,5}}\b|\s*\n\s*{_CITY}\s+{_POST_CODE})"
)
_LEADING_NUMBER = re.compile(r"(?<![\w.,-])\d{1,6} +$")
_ZIP_LABEL = (
    rf"(?i){WORD_START}(?:zip(?:[ -]?code)?|post(?:al)?[ -]?code|plz|postleitzahl|code postal|código postal"
    rf"|codigo postal|cep|cap|pin ?code|psč|postnummer|postcode)"
    r"(?:\s+(?:is|number|was|would be|will be"
    r"|no\.?))?\s*[:=#]?\s*((?:[A-Z]{1,2}-?)?\d[A-Z\d]{0,5}(?:[ -](?:\d{2,4}[A-Z]{0,2}|[A-Z]{2}))?"
    r"|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d)(?:[^\pL\pN]|$)"
)
_CODES = (
    ("uk_postcode", r"\b((?:[A-PR-UWYZ][A-HK-Y]?\d[A-Z\d]?) \d[ABD-HJLNP-UW-Z]{2})\b"),
    ("ca_postcode", r"\b([ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z] \d[ABCEGHJ-NPRSTV-Z]\d)\b"),
    ("us_zip",
        r"(?:, |\n *|[a-z] )(?:A[LKZR]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINSOT]|N[CDEHJMVY]|O[HKR]|PA|RI"
        r"|S[CD]|T[NX]|UT|V[AT]|W[AIVY]),? (\d{5}(?:-\d{4})?)\b"),
)  # fmt: skip
_ADDRESS_WORDS = context_words(
    "address*", "live", "lives", "lived", "living", "reside*", "street", "located", "meet", "office*", "deliver*",
    "ship*", "send", "home", "house", "moved", "apartment", "corner", "station", "visit", "arrived", "resident",
    "adresse*", "dirección", "indirizzo", "wohn*", "habite", "mail*", "corner of", "restaurant", "letter", "shop",
    "store",
)  # fmt: skip


def shapes() -> tuple[Anchor, ...]:
    """How countries write a street, a post box, a post code."""
    return (
        *(Anchor(name, f"{WORD_START}({expression})", _weak if name == "unit" else _street) for name, expression in
            _SHAPES),
        *(Anchor(name, expression, _code) for name, expression in _CODES),
    )  # fmt: skip


def triggers() -> tuple[Anchor, ...]:
    """What the text announces as an address or a post code, or writes without capitals."""
    return (
        Anchor("lower_case_street", _LOWER_STREET, _lower_street),
        Anchor("named_address", _TRIGGER, _named),
        Anchor("zip", _ZIP_LABEL, _zip),
    )


def _extended(text: str, end: int) -> int:
    """Over the unit, town and post code that go on from a street."""
    for _ in range(4):
        window = text[end : end + 60]
        tail = _TAIL.match(window) or _CITY_TAIL.match(window)
        if not tail:
            return end
        end += tail.end()
    return end


def _street(text: str, start: int, end: int) -> Iterator[Span]:
    if leading := _LEADING_NUMBER.search(before(text, start, 9)):
        start -= len(leading[0])  # a house number or post code in front
    score = NAMED_STREET_SCORE if _ADDRESS_WORDS.search(around(text, start, end)) else STREET_SCORE
    yield Span("STREET_ADDRESS", start, _extended(text, end), score)


def _weak(text: str, start: int, end: int) -> Iterator[Span]:
    """A suite or a flat: part of an address where a line or a comma sets it off."""
    alone = text[max(0, start - 2) : start].strip(" ") in ("", ",", "\n") and start > 0
    yield Span("STREET_ADDRESS", start, end, 0.45 if alone and text[start].isupper() else WEAK_STREET_SCORE)


def _lower_street(text: str, start: int, end: int) -> Iterator[Span]:
    """Without capitals, words that say "street" are often none: "2 cars on the road"."""
    inner = text[start:end].lower().split()[1:-1]
    if any(word.strip(".,") in _NO_STREET_NAME for word in inner):
        return
    named = _ADDRESS_WORDS.search(before(text, start)) is not None
    yield Span("STREET_ADDRESS", start, _extended(text, end), NAMED_STREET_SCORE if named else 0.45)


def _named(text: str, start: int, end: int) -> Iterator[Span]:
    """A house number beside words with capitals, where the text has just said that an address comes."""
    window = text[end : end + 120]
    match = _CHUNK.match(window)
    if not match:
        return
    value = match[1]
    words = re.findall(r"[^\W\d_][\w'’.-]*", value)
    capitals = sum(word[0].isupper() for word in words)
    lowered = window.islower() and text[max(0, start - 200) : start].islower()
    if _NO_PLACE.match(value) or (len(words) == 1 and words[0].isupper() and not lowered):
        return  # "on Feb 14", "During 2021", "to R2D2"
    following = text[end + match.end(1) : end + match.end(1) + 2]
    if following[:1] in ("%", "°") or (following[:1] in (",", ".") and following[1:].isdigit()):
        return
    if not words or not (capitals * 2 >= len(words) or lowered) or words[0].lower() in _NO_STREET_NAME:
        return
    if lowered and any(word in _NO_STREET_NAME for word in words):
        return
    first = end + match.start(1)
    yield Span("STREET_ADDRESS", first, _extended(text, end + match.end(1)), 0.6)


def _zip(text: str, start: int, end: int) -> Iterator[Span]:
    yield Span("ZIP_CODE", start, end, 0.8)


def _code(text: str, start: int, end: int) -> Iterator[Span]:
    if not re.match(r"\s\d", text[end : end + 2]):
        yield Span("ZIP_CODE", start, end, 0.5)
