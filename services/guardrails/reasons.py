"""What a person is told when a scanner decided: a machine-readable code, and the remedy in words."""

from __future__ import annotations

from services.guardrails.screening import Screening

__all__ = ["REASONS", "reason_of"]

_INJECTION = (
    "prompt_injection",
    "the text tries to override its instructions; rephrase it without instructions to the model",
)

REASONS = {
    "injection": _INJECTION,
    "multi_turn": ("prompt_injection", "the conversation tries to override its instructions step by step; start anew"),
    "indirect_injection": ("prompt_injection", "a tool's result holds instructions to the model; leave them out"),
    "secrets": ("secret", "the text holds a credential; remove it, and change it, since it has been sent"),
    "pii": ("personal_data", "the text holds personal data; remove it"),
    "invisible_text": ("invisible_text", "the text holds characters that a reader does not see; remove them"),
    "token_limit": ("token_limit", "the text is longer than the policy allows; shorten it or raise the limit"),
    "token_flood": ("token_flood", "the text repeats itself; shorten it"),
    "gibberish": ("gibberish", "the text holds a machine-made sequence without meaning; remove it"),
    "toxicity": ("toxicity", "the text is abusive; rephrase it"),
    "banned_topics": ("banned_topic", "the text is about a topic that the policy bans"),
    "banned_words": ("banned_words", "the text holds words that the policy bans; rephrase it"),
    "regex": ("banned_pattern", "the text matches an expression that the policy bans; rephrase it"),
    "language": ("language", "the text is in a language that the policy does not allow here"),
    "code": ("code", "the text holds programming code, which the policy does not allow here"),
    "unsafe_code": ("unsafe_code", "the text holds code that would do damage, or that is malformed"),
    "urls": (
        "unsafe_url",
        "the text holds an address that is malformed, disguised or not allowed; correct or remove it",
    ),
    "classifier": ("classifier", "a classifier that the policy names judged the text as not allowed"),
    "system_prompt_leak": ("system_prompt_leak", "the answer quotes the instructions of the system"),
    "canary": ("system_prompt_leak", "the answer holds the marker of the system's instructions"),
    "exfiltration": (
        "exfiltration",
        "the answer holds an address that could carry data away; allow its host in the policy if it is wanted",
    ),
    "refusal": ("refusal", "the model declined to answer"),
    "format": ("invalid_format", "the answer does not keep the format that the policy asks for"),
    "groundedness": ("ungrounded", "the answer says what the passages do not; add documents, or lower the threshold"),
}
"""(code, cause and remedy) by scanner."""


def reason_of(screening: Screening) -> tuple[str, str]:
    """Return code and reason of what was decided."""
    finding = screening.deciding
    if finding is None:
        return "", ""
    if finding.kind == "SCANNER_FAILED":
        why = screening.errors[finding.rule]
        return "scanner_failed", f"{finding.rule} could not judge the text, and the policy fails closed: {why}"
    return REASONS[finding.scanner]
