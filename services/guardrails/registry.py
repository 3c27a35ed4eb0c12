"""Every scanner by stage and name. A scanner of a new kind is added here, and its name to the configuration's list."""

from __future__ import annotations

from collections.abc import Mapping

from services.guardrails.findings import AnyScanner, Scanner
from services.guardrails.scanners.banned_topics import BannedTopicsScanner
from services.guardrails.scanners.canary import CanaryScanner
from services.guardrails.scanners.classifier import ClassifierScanner
from services.guardrails.scanners.code import CodeScanner
from services.guardrails.scanners.format import FormatScanner
from services.guardrails.scanners.gibberish import GibberishScanner
from services.guardrails.scanners.groundedness import GroundednessScanner
from services.guardrails.scanners.indirect_injection import IndirectInjectionScanner
from services.guardrails.scanners.injection import InjectionScanner
from services.guardrails.scanners.language import LanguageScanner
from services.guardrails.scanners.leakage import ExfiltrationScanner
from services.guardrails.scanners.multi_turn import MultiTurnScanner
from services.guardrails.scanners.pii import PiiScanner
from services.guardrails.scanners.prompt_leak import SystemPromptLeakScanner
from services.guardrails.scanners.refusal import RefusalScanner
from services.guardrails.scanners.secrets import SecretsScanner
from services.guardrails.scanners.text_rules import (
    BannedWordsScanner,
    InvisibleTextScanner,
    RegexScanner,
)
from services.guardrails.scanners.token_flood import TokenFloodScanner
from services.guardrails.scanners.token_limit import TokenLimitScanner
from services.guardrails.scanners.toxicity import ToxicityScanner
from services.guardrails.scanners.unsafe_code import UnsafeCodeScanner
from services.guardrails.scanners.urls import UrlScanner

__all__ = ["shipped_scanners"]


def shipped_scanners() -> Mapping[str, Mapping[str, AnyScanner]]:
    """The scanners of every stage, in the order they run: the cheapest first.

    Documents are judged for injections sentence by sentence with a model of their own: whoever writes a prompt gives
    instructions by right, a document does not.
    """
    common: list[Scanner] = [
        TokenLimitScanner(),
        TokenFloodScanner(),
        InvisibleTextScanner(),
        BannedWordsScanner(),
        RegexScanner(),
        LanguageScanner(),
        BannedTopicsScanner.packaged(),
        ToxicityScanner.packaged(),
        SecretsScanner(),
        UrlScanner(),
        ExfiltrationScanner(),
        CodeScanner(),
        PiiScanner(),
    ]
    prompts = InjectionScanner.for_prompts()
    classifier = ClassifierScanner()
    unsafe_code = UnsafeCodeScanner()
    gibberish = GibberishScanner.packaged()
    stages: dict[str, list[AnyScanner]] = {
        "input": [
            *common,
            gibberish,
            unsafe_code,
            IndirectInjectionScanner.for_documents(),
            prompts,
            MultiTurnScanner(prompts),
            classifier,
        ],
        "output": [
            CanaryScanner(),
            FormatScanner(),
            RefusalScanner(),
            SystemPromptLeakScanner(),
            GroundednessScanner(),
            *common,
            gibberish,
            unsafe_code,
            prompts,
            classifier,
        ],
        "documents": [*common, InjectionScanner.for_documents(), classifier],
    }
    return {stage: {scanner.name: scanner for scanner in scanners} for stage, scanners in stages.items()}
