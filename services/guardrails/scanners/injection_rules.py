# ruff: noqa: E501 (an expression that is broken up is harder to read than a long one)
"""Phrases that give an injection away whatever surrounds them, as RE2 expressions over canonical text (see
`normalise.canonical`).

They complement the classifier: they look at any place of a long text and hold for kinds of attack that the training
data lacks.
"""

from penstock.text.patterns import PatternSet

_GAP = r"[^.!?\n]{0,40}?"
_OVERRIDE = (
    r"(?:ignor(?:e|es|ed|ing)|disregard(?:s|ed|ing)?|forget(?:ting|s)?|overrid(?:e|es|ing)|overwrite|bypass|neglect|discard|set aside"
    r"|(?:do not|don'?t|dont|stop|no longer|never) (?:follow(?:ing)?|obey(?:ing)?|listen(?:ing)? to|adher(?:e|ing) to|comply(?:ing)? with)|pay no attention to)"
)
_INSTRUCTIONS = r"(?:instructions?|directions?|directives?|guidelines?|(?:system )?prompts?|orders|programming|restrictions|policies|constraints|commands|rules|messages)"
_BEFORE = r"(?:previous|prior|above|earlier|preceding|foregoing|former|initial|original|past|existing|current|system|developer|safety|content)"
_HIDDEN = r"(?:system|hidden|initial|original|secret|developer|internal|confidential|full|exact|entire|pre-?)"

RULES: tuple[tuple[str, float, str], ...] = (
    ("INSTRUCTION_OVERRIDE", 0.95, rf"\b{_OVERRIDE}\b{_GAP}\b{_BEFORE}\b{_GAP}\b{_INSTRUCTIONS}\b"),
    ("INSTRUCTION_OVERRIDE", 0.95, rf"\b{_OVERRIDE}\b (?:all|any|every|each) (?:of )?(?:the |your |my |these |those |other )?{_INSTRUCTIONS}\b"),
    ("INSTRUCTION_OVERRIDE", 0.9, rf"\b{_OVERRIDE}\b (?:your|all your|any of your) {_GAP}\b(?:{_INSTRUCTIONS}|training|guardrails|filters|ethics|alignment)\b"),
    ("INSTRUCTION_OVERRIDE", 0.9, rf"\b{_OVERRIDE}\b (?:everything|anything|all(?: of)?(?: the)?|whatever)\b{_GAP}\b(?:above|before|previously|earlier|prior|told|been said|instructed)\b"),
    ("INSTRUCTION_OVERRIDE", 0.85, rf"\b(?:forget|ignore|disregard)\b (?:(?:about|all|any|anything|everything|of|from|in|the|your|those|these|this|that|whole|entire) )*(?:previous|prior|above|earlier|preceding|foregoing)\b{_GAP}\b(?:assignment|tasks?|questions?|text|information|content|conversation|context|input|statements?|discussion|things?|said)"),
    ("INSTRUCTION_OVERRIDE", 0.9, rf"\b{_OVERRIDE}\b{_GAP}\b(?:instructions?|directions?|directives?|guidelines?|prompts?|orders|rules|commands|messages)\b {_GAP}\b(?:above|before this|you (?:were|have been|had been|got)|given to you|so far)\b"),
    ("INSTRUCTION_OVERRIDE", 0.85, r"\b(?:new|updated|revised|real|actual) (?:system )?(?:instructions?|directives?|system prompt)\b ?(?::|are|is|begin|follow)"),
    ("INSTRUCTION_OVERRIDE", 0.85, r"\b(?:ignorier\w*|vergiss|vergesst|vergessen sie|missacht\w*)\b[^.\n]{0,40}(?:anweisung|instruktion|befehl|anordnung|vorgaben|aufgaben|alles (?:was|zuvor|bisher|davor)|bisherige|vorherige)"),
    ("INSTRUCTION_OVERRIDE", 0.85, r"\b(?:ignor(?:e|ez|er|a|en|ad|i|are)|oubli(?:e|ez|er)|olvida|olvide|olvidar|dimentica\w*|esquec[ae]|esqueca|desconsider\w*|haz caso omiso de)\b[^.\n]{0,40}(?:instruction|consigne|instruccion|ordenes|indicacion|istruzion|instruc|todo lo anterior|tout ce qui|precedent|anterior)"),
    ("INSTRUCTION_OVERRIDE", 0.85, r"(?:игнорир|забудь|забудьте|не обращай)[^.\n]{0,40}(?:инструкц|указани|правил|команд)|(?:忽略|无视|忘记|忘掉)[^。\n]{0,16}(?:指令|指示|规则|提示|说明)|(?:指示|命令|ルール|指令)[^。\n]{0,12}(?:無視|忘れ)|(?:지시|명령|규칙)[^.\n]{0,16}(?:무시|잊)|(?:निर्देश|आदेश)[^।\n]{0,30}(?:अनदेख|नज़रअंदाज|भूल)|(?:تجاهل|انس)[^.\n]{0,30}(?:التعليمات|الأوامر|تعليمات)|(?:negeer|vergeet)\b[^.\n]{0,30}(?:instructies|opdrachten|regels)|(?:zignoruj|zapomnij)\b[^.\n]{0,30}(?:instrukcj|polecen)|talimatlar[^.\n]{0,20}(?:yok say|unut|gormezden)"),
    ("PROMPT_EXTRACTION", 0.9, rf"\b(?:reveal|show|print|repeat|output|display|tell|give|disclose|share|write|leak|expose|return|dump|spell|recite|summari[sz]e|translate|encode|what(?:'s| is| are| was| were)|provide|list)\b{_GAP}\byour (?:\w+ )?{_HIDDEN}(?: \w+)? (?:prompt|instructions?|messages?|rules|directives?|configuration|guidelines)\b"),
    ("PROMPT_EXTRACTION", 0.9, rf"\b(?:reveal|show|print|repeat|output|display|tell|give|disclose|share|write|leak|expose|return|dump|spell|recite|summari[sz]e|translate|encode|what(?:'s| is| are| was| were)|provide|list)\b{_GAP}\bthe (?:(?:full|entire|exact|whole) )?(?:system|hidden|initial|original|secret|developer|confidential) (?:prompt|instructions?)\b"),
    ("PROMPT_EXTRACTION", 0.9, rf"\b(?:reveal|show|print|repeat|output|display|tell|give|disclose|share|write|leak|expose|return|dump|spell|recite|summari[sz]e|translate|encode|what(?:'s| is| are| was| were)|provide|list)\b{_GAP}\bthe (?:full|entire|exact|whole) (?:prompt|instructions)\b"),
    ("PROMPT_EXTRACTION", 0.85, r"\b(?:repeat|print|output|display|recite|copy|write(?: out| down)?|echo|return)\b[^.!?\n]{0,40}\b(?:everything|all(?: of)?(?: the)?|the (?:text|words|content|instructions|prompt|message)s?)\b[^.!?\n]{0,30}\b(?:above|before this|preceding|you were (?:given|told)|prior to)"),
    ("PROMPT_EXTRACTION", 0.85, r"\b(?:what|which) (?:is|are|was|were)\b[^.!?\n]{0,20}\b(?:your|the) (?:\w+ )?(?:prompt|instructions)\b[^.!?\n]{0,30}(?:\byou (?:were|got|received|have been)\b|\bgiven\b|\bverbatim\b|above|at the (?:start|beginning|top))"),
    ("INSTRUCTION_OVERRIDE", 0.85, r"\b(?:alle[ns]?|die|das|samtliche[ns]?) (?:vorherig|bisherig|obig|vorangegangen|gesagt)\w*\b[^.\n]{0,40}\b(?:ignorier|vergess|vergiss|hinter sich|missacht)|\bvergiss (?:alles|das alles)\b"),
    ("PROMPT_EXTRACTION", 0.6, r"\b(?:what(?:'s| is)|tell me|reveal|give me|show me|print|spell|share|provide|write)\b[^.!?\n]{0,20}\bthe (?:secret |hidden |system |master |admin )?(?:password|passphrase|secret key|api key|access code)\b"),
    ("PROMPT_EXTRACTION", 0.8, r"\b(?:what(?:'s| is)|tell me|reveal|give me|show me|print|spell|share)\b[^.!?\n]{0,20}\byour (?:\w+ )?(?:secret|password|passphrase|secret key|api key|access code|credentials)\b"),
    ("JAILBREAK", 0.95, r"\bdo anything now\b|\bdan mode\b|\bjailbr(?:eak|oken) (?:mode|prompt|version|ai)\b|\b(?:mongo tom|evil ?bot|antigpt|chaosgpt|betterdan|freedomgpt|devgpt|basedgpt|darkgpt)\b"),
    ("JAILBREAK", 0.85, r"\b(?:you(?: are|'re| will be| must be)|act(?:ing)? as|pretend(?:ing)?|becom(?:e|ing)|role-?play(?:ing)?|simulat(?:e|ing)|imagine|named|called|persona|character|mode|ai|assistant|chatbot|model)\b[^.!?\n]{0,80}\b(?:unfiltered|uncensored|unrestricted|amoral|jailbroken|no (?:\w+ )?(?:restrictions|limitations|filters?|censorship|ethics|morals?|moral code|ethical (?:or|and|guidelines|constraints))|without (?:any |the )?(?:\w+ )?(?:restrictions|limitations|filters?|censorship|ethic\w*|moral\w*)|free (?:of|from) (?:all |any )?(?:restrictions|limitations|rules|filters))\b"),
    ("JAILBREAK", 0.85, r"\b(?:developer|dev|dan|god|sudo|jailbreak|unrestricted|unfiltered|evil|opposite|admin|debug|maintenance) mode\b[^.!?\n]{0,30}\b(?:enabled?|activated?|unlocked|engaged)\b"),
    ("JAILBREAK", 0.8, r"\b(?:never|don'?t|do not|cannot|can'?t|must not|won'?t|will not|not allowed to|unable to) (?:ever )?(?:refuse|reject|decline|deny|say no to)\b[^.!?\n]{0,30}\b(?:request|question|prompt|command|answer|anything|order|instruction|me\b|user|human)"),
    ("JAILBREAK", 0.8, r"\b(?:bypass|circumvent|evade|disable|turn off|remove|break free (?:of|from)|escape|ignor(?:e|ing))\b[^.!?\n]{0,30}\b(?:openai|chatgpt|anthropic|google|your|its|their|all|the|any)\b[^.!?\n]{0,20}\b(?:content polic\w+|usage polic\w+|safety (?:filters?|guidelines|measures|protocols|restrictions)|guardrails|ethical guidelines|moral (?:guidelines|code)|content filters?|censorship|moderation)"),
    ("FAKE_ROLE", 0.85, r"<\|?(?:im_start|im_end|im_sep|system|endoftext|end_of_turn|start_header_id|eot_id)\|?>|\[/?inst\]|<</?sys>>|\[system\]|\[/?system (?:message|prompt|override)\]|</?(?:system|instructions?|system_prompt)>"),
    ("FAKE_ROLE", 0.75, r"(?:\bend of (?:user )?(?:input|prompt|instructions|context|document)\b|-{3,}|#{2,}|={3,})\s{0,3}(?:new )?(?:system|developer|admin|root)(?: (?:message|prompt|instructions?|override|note))?\s{0,2}[:\]]"),
    ("INDIRECT_INSTRUCTION", 0.85, r"\b(?:note|message|instructions?|attention|hint|important)\b[^.\n]{0,20}\b(?:to|for)\b[^.\n]{0,12}\b(?:ai|llms?|language models?|assistants?|chatbots?|chatgpt|copilot|bots?)\b(?: (?:agents?|assistants?|models?|systems?))?[^.\n]{0,30}:"),
    ("INDIRECT_INSTRUCTION", 0.8, r"\b(?:if you are|as) an? (?:ai|llm|(?:large )?language model|assistant|chatbot|automated (?:system|agent))\b[^.\n]{0,30}\b(?:you must|must|please|you should|reading|processing|summari[sz]ing|ignore|include|add|reply|respond)\b"),
    ("INDIRECT_INSTRUCTION", 0.8, r"\bdo not (?:mention|reveal|tell|disclose|show)\b[^.\n]{0,40}\b(?:to the (?:user|human|reader)|this (?:sentence|instruction|message|prompt|note)|these instructions)"),
)  # fmt: skip
"""(kind, score, expression)."""

_PATTERNS = PatternSet(expression for _, _, expression in RULES)


def strongest_rule(folded: str) -> tuple[str, float]:
    """Kind and score of the surest rule that a canonical text breaks, or ("", 0)."""
    index = max((index for index, _, _ in _PATTERNS.matches(folded)), key=lambda i: RULES[i][1], default=None)
    return ("", 0.0) if index is None else RULES[index][:2]
