"""National and financial identifiers by their check digits: Presidio's recognizers, and python-stdnum's formats for the
countries that it does not have.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

from presidio_analyzer import PatternRecognizer
from presidio_analyzer import predefined_recognizers as presidio

from services.guardrails.findings import Span
from services.guardrails.scanners.pii.anchors import CONTEXT_BOOST, Anchor, around, context_words, words

NAMED = 0.85
"""Score of an identifier with right check digits that the text names."""
UNNAMED_DIGITS = 0.3
"""Highest score of an all-digits identifier that the text does not name: one in ten random numbers passes a check digit."""
WINDOW = 24
"""Characters shown to a Presidio recognizer on either side of an anchor."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A format of python-stdnum: `module` there, `shape` as it is written (RE2), the words that name it.

    `unnamed` is the score without such a word near; 0 leaves those out, for what one in ten random numbers of that
    length would pass.
    """

    kind: str
    module: str
    shape: str
    named: tuple[str, ...]
    unnamed: float = 0.0


NUMBER_FORMATS: tuple[NumberFormat, ...] = (
    NumberFormat("AL_NIPT", "al.nipt", r"[JKL]\d{8}[A-Z]", ("nipt", "nuis")),
    NumberFormat("AR_CUIT", "ar.cuit", r"(?:20|23|24|27|30|33|34|50|51|55)-?\d{8}-?\d", ("cuit", "cuil", "afip")),
    NumberFormat("AR_DNI", "ar.dni", r"\d{2}\.?\d{3}\.?\d{3}", ("dni", "documento nacional de identidad")),
    NumberFormat("AT_SVNR", "at.vnr", r"\d{4} ?\d{6}", ("svnr", "sv-nummer", "sozialversicherungsnummer",
        "versicherungsnummer")),
    NumberFormat("BE_NATIONAL_NUMBER", "be.nn", r"\d{2}[. ]?\d{2}[. ]?\d{2}[- ]?\d{3}[. ]?\d{2}", (
        "rijksregister*", "registre national", "numéro national", "national number", "national register", "insz",
        "niss")),
    NumberFormat("BG_EGN", "bg.egn", r"\d{10}", ("egn", "егн", "uniform civil number")),
    NumberFormat("BR_CPF", "br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", ("cpf",), 0.85),
    NumberFormat("BR_CPF", "br.cpf", r"\d{11}", ("cpf",)),
    NumberFormat("CA_BC_PHN", "ca.bc_phn", r"9\d{3} ?\d{3} ?\d{3}", ("phn", "personal health number", "health card",
        "care card")),
    NumberFormat("CH_AHV", "ch.ssn", r"756[.]?\d{4}[.]?\d{4}[.]?\d{2}", ("ahv*", "avs", "sozialversicherungsnummer"),
        0.85),
    NumberFormat("CL_RUT", "cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", ("rut", "run", "cédula"), 0.6),
    NumberFormat("CL_RUT", "cl.rut", r"\d{7,8}-[\dKk]", ("rut", "run", "cédula")),
    NumberFormat("CN_RESIDENT_ID", "cn.ric", r"[1-8]\d{5}(?:19|20)\d{9}[\dXx]", ("身份证*", "id card",
        "resident identity"), 0.85),
    NumberFormat("CO_NIT", "co.nit", r"\d{3}\.?\d{3}\.?\d{3}-?\d", ("nit",)),
    NumberFormat("CU_NI", "cu.ni", r"\d{11}", ("carnet de identidad", "número de identidad")),
    NumberFormat("CZ_SK_BIRTH_NUMBER", "cz.rc", r"\d{6}/\d{3,4}", ("rodné číslo", "rodné čísla", "birth number", "rč",
        "rc"), 0.6),
    NumberFormat("CZ_SK_BIRTH_NUMBER", "cz.rc", r"\d{9,10}", ("rodné číslo", "birth number", "rč")),
    NumberFormat("DE_TAX_ID", "de.idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", ("steuer*", "idnr", "tin", "tax id*",
        "identifikationsnummer")),
    NumberFormat("DK_CPR", "dk.cpr", r"\d{6}-?\d{4}", ("cpr*", "personnummer", "cpr-nr")),
    NumberFormat("DO_CEDULA", "do.cedula", r"\d{3}-?\d{7}-?\d", ("cédula", "cedula")),
    NumberFormat("EC_CI", "ec.ci", r"\d{9}-?\d", ("cédula", "cedula", "ci")),
    NumberFormat("EE_ISIKUKOOD", "ee.ik", r"[1-6]\d{10}", ("isikukood*", "personal code", "personal id code", "ik")),
    NumberFormat("ES_CCC", "es.ccc", r"\d{4}[ -]?\d{4}[ -]?\d{2}[ -]?\d{10}", ("ccc", "cuenta",
        "código cuenta cliente")),
    NumberFormat("FR_NIR", "fr.nir", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", (
        "sécurité sociale", "securite sociale", "nir", "insee"), 0.75),
    NumberFormat("FR_TAX_ID", "fr.nif", r"[0-3]\d ?\d{2} ?\d{3} ?\d{3} ?\d{3}", ("numéro fiscal", "nif", "spi", "tax")),
    NumberFormat("UK_UTR", "gb.utr", r"\d{5} ?\d{5}", ("utr", "unique taxpayer reference", "self assessment", "hmrc")),
    NumberFormat("GR_AMKA", "gr.amka", r"\d{11}", ("amka", "αμκα")),
    NumberFormat("GR_AFM", "gr.vat", r"\d{9}", ("afm", "αφμ", "tax")),
    NumberFormat("HR_OIB", "hr.oib", r"(?:HR ?)?\d{11}", ("oib",)),
    NumberFormat("ID_NIK", "id.nik", r"\d{16}", ("nik", "ktp", "nomor induk kependudukan")),
    NumberFormat("IE_PPS", "ie.pps", r"\d{7}[A-W][A-IW]?", ("pps*", "personal public service")),
    NumberFormat("IL_ID", "il.idnr", r"\d{8}-?\d", ("teudat zehut", "mispar zehut", "israeli id", "תעודת זהות",
        "מספר זהות", "ת.ז")),
    NumberFormat("IS_KENNITALA", "is_.kennitala", r"[0-7]\d[01]\d{3}-?\d{4}", ("kennitala*", "kt")),
    NumberFormat("JP_MY_NUMBER", "jp.in_", r"\d{4}[ -]?\d{4}[ -]?\d{4}", ("my number", "individual number", "マイナンバー*",
        "個人番号*")),
    NumberFormat("KR_RRN", "kr.rrn", r"\d{6}-[1-8]\d{6}", ("주민등록번호*", "rrn", "resident registration"), 0.85),
    NumberFormat("LT_ASMENS_KODAS", "lt.asmens", r"[1-6]\d{10}", ("asmens kod*", "personal code")),
    NumberFormat("LV_PERSONAL_CODE", "lv.pvn", r"\d{6}-?\d{5}", ("personas kod*", "personal code")),
    NumberFormat("MX_CURP", "mx.curp", r"[A-Za-z]{4}\d{6}[HMhm][A-Za-z]{5}[0-9A-Za-z]\d", ("curp",), 0.85),
    NumberFormat("MX_RFC", "mx.rfc", r"[A-ZÑa-zñ&]{4} ?\d{6} ?[0-9A-Za-z]{3}", ("rfc",)),
    NumberFormat("MY_NRIC", "my.nric", r"\d{6}-\d{2}-\d{4}", ("nric", "mykad", "ic", "kad pengenalan"), 0.6),
    NumberFormat("MY_NRIC", "my.nric", r"\d{12}", ("nric", "mykad", "kad pengenalan")),
    NumberFormat("NL_BSN", "nl.bsn", r"\d{4}[. ]?\d{2}[. ]?\d{3}|\d{9}", ("bsn*", "burgerservicenummer", "sofinummer",
        "citizen service number")),
    NumberFormat("NO_FODSELSNUMMER", "no.fodselsnummer", r"\d{6} ?\d{5}", (
        "fødselsnummer*", "fodselsnummer*", "personnummer", "birth number", "fnr", "d-nummer",
        "national identity number")),
    NumberFormat("NZ_IRD", "nz.ird", r"\d{2,3}-?\d{3}-?\d{3}", ("ird*", "inland revenue")),
    NumberFormat("PE_CUI", "pe.cui", r"\d{8}-?[\dA-K]", ("dni", "cui")),
    NumberFormat("PK_CNIC", "pk.cnic", r"\d{5}-\d{7}-\d", ("cnic", "nadra", "nicop"), 0.75),
    NumberFormat("PT_NIF", "pt.nif", r"(?:PT ?)?[1-9]\d{2} ?\d{3} ?\d{3}", ("nif", "contribuinte",
        "número de identificação fiscal")),
    NumberFormat("PT_CITIZEN_CARD", "pt.cc", r"\d{8} ?\d ?[A-Z]{2}\d", ("cartão de cidadão", "cartão",
        "citizen card"), 0.5),
    NumberFormat("RO_CNP", "ro.cnp", r"[1-9]\d{12}", ("cnp", "cod numeric personal")),
    NumberFormat("RS_SI_EMSO", "si.emso", r"[0-3]\d[01]\d{10}", ("emšo", "emso", "jmbg", "matična", "enotna matična")),
    NumberFormat("RU_INN", "ru.inn", r"\d{12}|\d{10}", ("инн", "inn", "taxpayer")),
    NumberFormat("TH_PIN", "th.pin", r"\d-\d{4}-\d{5}-\d{2}-\d", ("thai id", "บัตรประชาชน*", "ประจำตัวประชาชน*"), 0.75),
    NumberFormat("UA_TAX_NUMBER", "ua.rntrc", r"\d{10}", ("рнокпп", "іпн", "rntrc", "taxpayer")),
    NumberFormat("US_EIN", "us.ein", r"\d{2}-\d{7}", ("ein", "employer identification", "employer id", "fein",
        "tax id", "federal tax id")),
    NumberFormat("US_PTIN", "us.ptin", r"[Pp]-?\d{8}", ("ptin", "preparer")),
    NumberFormat("US_ATIN", "us.atin", r"9\d{2}-?\d{2}-?\d{4}", ("atin", "adoption")),
    NumberFormat("VE_RIF", "ve.rif", r"[VEJPGvejpg]-?\d{8}-?\d", ("rif",)),
    NumberFormat("ZA_ID_NUMBER", "za.idnr", r"\d{6} ?\d{4} ?\d{2} ?\d", ("id number", "identity number",
        "south african id", "rsa id", "id no")),
    NumberFormat("EU_VAT_NUMBER", "eu.vat",
        r"(?:ATU|BE|BG|CY|CZ|DE|DK|EE|EL|ES|FI|FR|HR|HU|IE|IT|LT|LU|LV|MT|NL|PL|PT|RO|SE|SI|SK)[ ]?[0-9A-Z.]{8,14}", (
        "vat*", "ust*", "tva", "iva", "btw", "umsatzsteuer*", "tax")),
    NumberFormat("IMEI", "imei", r"\d{2}-?\d{6}-?\d{6}-?\d{1,3}", ("imei*",)),
    NumberFormat("SWIFT_BIC", "bic", r"[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?", ("bic", "swift*")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recognizers:
    """Presidio recognizers that share an anchor (RE2). With `named`, only where a word of theirs is near: for formats
    that are nothing but digits.
    """

    name: str
    anchor: str
    recognizers: tuple[str, ...]
    named: tuple[str, ...] = ()


PRESIDIO: tuple[Recognizers, ...] = (
    Recognizers("iban", r"(?i)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,9}", ("IbanRecognizer",)),
    Recognizers("crypto", r"\b(?:bc1|[13])[a-zA-HJ-NP-Z0-9]{25,59}\b", ("CryptoRecognizer",)),
    Recognizers("us_ssn", r"\b\d{3}[-. ]\d{2}[-. ]\d{4}\b", ("UsSsnRecognizer", "UsItinRecognizer")),
    Recognizers("us_ssn_digits", r"\b\d{9}\b|\b\d{5}-\d{4}\b|\b\d{3}-\d{6}\b", ("UsSsnRecognizer", "UsItinRecognizer"),
        (
        "ssn*", "social", "social security", "itin", "tin", "taxpayer")),
    Recognizers("us_passport", r"(?i)\b[A-Z]?\d{8,9}\b", ("UsPassportRecognizer",), ("passport*",)),
    Recognizers("us_mbi", r"\b[1-9][A-Y][A-Y0-9]\d-?[A-Y][A-Y0-9]\d-?[A-Y]{2}\d{2}\b", ("UsMbiRecognizer",)),
    Recognizers("us_npi", r"\b[12]\d{3}[ -]?\d{3}[ -]?\d{3}\b", ("UsNpiRecognizer",), ("npi", "national provider")),
    Recognizers("aba_routing", r"\b[0-3678]\d{3}-?\d{4}-?\d\b", ("AbaRoutingRecognizer",), ("aba", "routing",
        "bankrouting")),
    Recognizers("us_driver_license", r"(?i)\b[A-Z]{1,2}\d{5,14}\b|\b\d{7,9}\b", ("UsLicenseRecognizer",), (
        "driver license*", "driver's license*", "drivers license*", "driving licen*", "driver's licence",
        "driver licence", "dl")),
    Recognizers("uk_nhs", r"\b\d{3}[ -]?\d{3}[ -]?\d{4}\b", ("NhsRecognizer",), ("nhs*", "national health service",
        "health authority")),
    Recognizers("uk_nino", r"(?i)\b[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", ("UkNinoRecognizer",)),
    Recognizers("uk_driving_licence", r"\b[A-Z9]{5}\d{6}[A-Z9]{2}[A-Z0-9][A-Z]{2}\b", ("UkDrivingLicenceRecognizer",)),
    Recognizers("au_tfn", r"\b\d{3}[ -]?\d{3}[ -]?\d{3}\b", ("AuTfnRecognizer",), ("tfn", "tax file",
        "tax file number")),
    Recognizers("ca_sin", r"\b\d{3}[ -]?\d{3}[ -]?\d{3}\b", ("CaSinRecognizer",), ("sin", "social insurance", "nas")),
    Recognizers("au_medicare", r"\b[2-6]\d{3} ?\d{5} ?\d\b", ("AuMedicareRecognizer",), ("medicare*",)),
    Recognizers("pl_pesel", r"\b\d{11}\b", ("PlPeselRecognizer",), ("pesel*",)),
    Recognizers("de_tax_id", r"\b\d{2}(?:[ -]?\d{3}){3}\b", ("DeTaxIdRecognizer",), (
        "steuer*", "idnr", "tin", "tax id*", "identifikationsnummer")),
    Recognizers("de_social_security", r"\b\d{8}[A-Z]\d{3}\b", ("DeSocialSecurityRecognizer",)),
    Recognizers("de_id_card", r"\b[CFGHJKLMNPRTVWXYZ][CFGHJKLMNPRTVWXYZ0-9]{7}\d\b", ("DeIdCardRecognizer",
        "DePassportRecognizer"), (
        "personalausweis*", "ausweis*", "reisepass*", "passnummer", "passport*", "npa")),
    Recognizers("in_aadhaar", r"\b\d{4}[ :-]?\d{4}[ :-]?\d{4}\b", ("InAadhaarRecognizer",), ("aadhaar*", "aadhar*",
        "uidai")),
    Recognizers("in_pan", r"(?i)\b[A-Z]{5}\d{4}[A-Z]\b", ("InPanRecognizer",)),
    Recognizers("in_voter", r"(?i)\b[A-Z]{3}\d{7}\b", ("InVoterRecognizer",), ("voter*", "epic")),
    Recognizers("se_personnummer", r"\b(?:\d{2})?\d{6}[-+]\d{4}\b", ("SePersonnummerRecognizer",)),
    Recognizers("se_personnummer_digits", r"\b(?:\d{2})?\d{10}\b", ("SePersonnummerRecognizer",), (
        "personnummer*", "swedish id", "personal number")),
    Recognizers("fi_hetu", r"\b\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]\b", ("FiPersonalIdentityCodeRecognizer",)),
    Recognizers("es_dni", r"(?i)\b(?:[XYZ]-?)?\d{7,8}-?[A-Z]\b", ("EsNifRecognizer", "EsNieRecognizer")),
    Recognizers("it_fiscal_code", r"(?i)\b[A-Z]{6}[0-9L-V]{2}(?:[A-Z][0-9L-V]{2}){2}[0-9L-V][A-Z]\b", (
        "ItFiscalCodeRecognizer",)),
    Recognizers("it_driver_license", r"(?i)\b(?:[A-Z]{2}\d{7}[A-Z]|U1[A-Z0-9]{7}[A-Z])\b", (
        "ItDriverLicenseRecognizer",), ("patente*", "licenza*")),
    Recognizers("sg_fin", r"(?i)\b[STFGM]\d{7}[A-Z]\b", ("SgFinRecognizer",)),
    Recognizers("tr_national_id", r"\b[1-9]\d{10}\b", ("TrNationalIdRecognizer",), ("kimlik*", "tckn", "tc no",
        "turkish id")),
    Recognizers("ng_nin", r"\b\d{11}\b", ("NgNinRecognizer",), ("nin", "nimc", "national identification number")),
    Recognizers("ph_umid", r"\b\d{4}-\d{7}-\d\b", ("PhUmidRecognizer",)),
    Recognizers("medical_license", r"\b[A-Za-z][A-Za-z9]\d{7}\b", ("MedicalLicenseRecognizer",), ("medical", "dea",
        "certificate")),
)  # fmt: skip


def anchors() -> tuple[Anchor, ...]:
    """Raises ImportError where python-stdnum lacks a format."""
    return (
        *(_number_anchor(number) for number in NUMBER_FORMATS),
        *(
            Anchor(
                group.name,
                group.anchor,
                _presidio([getattr(presidio, name)() for name in group.recognizers]),
                words(*group.named) if group.named else None,
                costly=_kind_of(group),
            )
            for group in PRESIDIO
        ),
    )


def _kind_of(group: Recognizers) -> str:
    return str(getattr(presidio, group.recognizers[0])().supported_entities[0])


def _number_anchor(number: NumberFormat) -> Anchor:
    """The stdnum module's `is_valid`, on what stands alone."""
    is_valid: Callable[[str], bool] = import_module(f"stdnum.{number.module}").is_valid
    near = context_words(*number.named)

    def confirm(text: str, start: int, end: int) -> Iterator[Span]:
        if not is_valid(text[start:end]):
            return
        named = near.search(around(text, start, end)) is not None
        if named or number.unnamed:
            yield Span(number.kind, start, end, NAMED if named else number.unnamed)

    context = None if number.unnamed else words(*number.named)
    return Anchor(number.kind.lower(), rf"(?:{number.shape})", confirm, context, number.kind, _stands_alone)


def _stands_alone(text: str, start: int, end: int) -> bool:
    if start and (text[start - 1].isalnum() or (text[start - 1] in "-.,/_+" and text[start - 2 : start - 1].isalnum())):
        return False
    following = text[end : end + 2]
    if not following or following[0] not in "-.,/_" or len(following) < 2:
        return not following[:1].isalnum() and following[:1] != "_"
    return not following[1].isalnum()


def _presidio(recognizers: Sequence[PatternRecognizer]) -> Callable[[str, int, int], Iterator[Span]]:
    """Confirm an anchor by the recognizers, each shown the anchor and a little text around it."""
    contexts = [
        re.compile("|".join(re.escape(word.lower()) for word in recognizer.context or ("\0",)))
        for recognizer in recognizers
    ]

    def confirm(text: str, start: int, end: int) -> Iterator[Span]:
        left, right = max(0, start - WINDOW), min(len(text), end + WINDOW)
        window = text[left:right]
        for recognizer, context in zip(recognizers, contexts, strict=True):
            for result in recognizer.analyze(window, recognizer.supported_entities):
                first, last = left + result.start, left + result.end
                if last <= start or first >= end:
                    continue
                score = float(result.score)
                if context.search(around(text, first, last).lower()):
                    score = min(1.0, max(score + CONTEXT_BOOST, 0.4))
                elif not any(map(str.isalpha, text[first:last])) and result.entity_type != "US_SSN":
                    score = min(score, UNNAMED_DIGITS)
                yield Span(str(result.entity_type), first, last, score)

    return confirm
