"""Instructions hidden in what a tool returned: judged as a document is, sentence by sentence."""

from services.guardrails.scanners.injection import InjectionScanner


class IndirectInjectionScanner(InjectionScanner):
    """The document scanner for the messages of tools: whoever wrote them gives no instructions by right."""

    name = "indirect_injection"
