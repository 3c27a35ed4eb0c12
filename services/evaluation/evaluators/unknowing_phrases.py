"""How answers say that they do not know, or that their evidence does not say."""

# ruff: noqa: E501 - an expression is read as one line
from __future__ import annotations

__all__ = ["UNKNOWING"]

_EVIDENCE = r"(?:context|passages?|documents?|sources?|texts?|excerpts?|articles?|information|materials?|records?|knowledge base|search results?)"
_SAYS = r"(?:contain|mention|say|include|specify|state|provide|cover|address|give|tell|indicate|discuss|answer|offer|list|describe|reveal|have)"

UNKNOWING: tuple[tuple[str, float], ...] = (
    # English
    (r"\bi (?:(?:really|honestly|simply|just|still) )?(?:do not|don't|dont) (?:(?:really|actually) )?know(?:\s*[.!,;—-]|\s*$| (?:the answer|who|what|when|where|which|why|how (?:many|much|long|old|far)|whether|if|that|this|anything|for (?:sure|certain)))", 0.9),
    (r"\bi (?:have|'ve|'ve got|'ve) (?:absolutely )?no (?:idea|clue|information|knowledge|data|record|details?|way of knowing)\b", 0.9),
    (r"\bi (?:do not|don't) (?:(?:currently|actually|really) )?have (?:any |enough |sufficient |specific |the |access to |that |this |an? |reliable |up-to-date |current |real-time ){0,3}(?:information|data|details|context|knowledge|answer|record)\b", 0.9),
    (r"\b" + _EVIDENCE + r"(?: (?:provided|given|available|above|supplied|retrieved|i have|at hand))?,? (?:(?:do|does|did) not|don't|doesn't|didn't) (?:\w+ ){0,2}?" + _SAYS + r"\b", 0.85),
    (r"\bthere (?:is|'s|are|was|were) (?:no|not any|not enough) (?:\w+ ){0,3}?(?:information|mention|answer|details?|reference|evidence|data) (?:\w+ ){0,3}?(?:about|on|of|in|regarding|for|to|available|given|provided)\b", 0.8),
    (r"\bno (?:\w+ ){0,2}(?:information|answer|mention|details?) (?:\w+ ){0,4}?(?:is|are|was|were|could be|can be) (?:available|found|given|provided|mentioned|made)\b", 0.85),
    (r"\b(?:is not|are not|was not|were not|isn't|aren't|wasn't|weren't) (?:\w+ )?(?:mentioned|specified|stated|provided|given|included|covered|addressed|discussed|found|described|answered) (?:anywhere )?(?:in|by) (?:the|any of the|these|your|this|my) (?:\w+ ){0,2}?" + _EVIDENCE + r"\b", 0.85),
    (r"\bi (?:can't|cannot|can not|could not|couldn't|am unable to|was unable to|am not able to|did not|didn't) (?:find|determine|tell|locate|confirm|answer|say|see) (?:\w+ ){0,3}?(?:information|answer|mention|that|this|whether|if|who|what|when|where|which|why|how|from|any|anything|it|with certainty|for (?:sure|certain))\b", 0.8),
    (r"\binsufficient (?:information|context|data|detail)\b", 0.7),
    (r"\b(?:this|it|(?:the|your) (?:\w+ )?(?:answer|question|information|details?)) (?:cannot|can't|can not|could not|couldn't) be (?:determined|answered|inferred|established|concluded|found|derived)\b", 0.75),
    (r"\b(?:cannot|can't|can not|could not|couldn't) be (?:determined|answered|inferred|established|concluded|derived)(?:\s*(?:[.!;]|$)| (?:from|based on|using|with|without|given) (?:the|these|this|those|any|what|your|more|only)\b)", 0.75),
    (r"\bi (?:(?:currently|also) )?(?:do not|don't) (?:(?:currently|actually|really) )?have (?:direct |any |live |real-time )?access to (?:your|any|the|this|that|these|those|current|live|real-time|up-to-date|external|personal|private|internal)\b", 0.7),
    (r"\bit (?:is|'s) (?:unclear|unknown|not (?:clear|known|possible to (?:say|tell|determine|answer)))\b", 0.55),
    (r"\bi(?:'m| am) (?:(?:really|honestly) )?not (?:sure|certain|aware|familiar)\b", 0.55),
    (r"^\W*(?:unknown|unanswerable|not answerable|no answer|no idea|n/?a|not (?:stated|specified|mentioned|given|available)|unclear|none found|not found|i (?:do not|don't) know)\W*$", 0.95),
    (r"^\W*(?:no (?:relevant )?(?:passages?|documents?|sources?|evidence|results?) (?:was |were )?(?:found|available|retrieved))", 0.9),
    # German
    (r"\b(?:das )?wei[sß]s? ich (?:leider |auch |es )*nicht\b|\bich wei[sß]s? (?:es |das |leider |auch )*nicht\b|\bkeine ahnung\b", 0.9),
    (r"\b(?:habe|liegen|gibt es|finde|enth[aä]lt|enthalten|sind|besitze|verf[uü]ge)\b[^.!?\n]{0,50}\bkeine (?:\w+ )?(?:informationen|angaben|hinweise|daten|antwort|auskunft)\b|\b(?:geht|ergibt sich|l[aä]sst sich)\b[^.!?\n]{0,60}\bnicht\b[^.!?\n]{0,20}\b(?:hervor|beantworten|entnehmen|sagen|ermitteln)\b|\bnicht (?:erw[aä]hnt|enthalten|angegeben|bekannt|genannt)\b", 0.8),
    # French
    (r"\bje (?:ne |n')?(?:le )?sais pas\b|\bje l'ignore\b|\baucune id[ée]e\b", 0.9),
    (r"\baucune (?:information|mention|donn[ée]e|indication)\b|\bpas d'informations?\b|\bne (?:mentionne|contient|pr[ée]cise|contiennent|mentionnent|pr[ée]cisent|permet|indique|permettent|indiquent)(?:nt)? (?:pas|rien|aucun)|\bn'(?:est|est pas|indique|ai) (?:pas )?(?:mentionn[ée]|pr[ée]cis[ée]|trouv[ée])", 0.8),
    # Spanish
    (r"(?:^|[.!?,;:\n] ?)(?:lo siento,? )?(?:pero )?(?:yo )?no (?:lo )?s[eé](?:\s*[.!,;]|\s*$| (?:la respuesta|qui[eé]n|qu[eé]|cu[aá]ndo|d[oó]nde|cu[aá]l|si)\b)|\bno tengo (?:ni )?(?:la menor )?idea\b|\bdesconozco\b", 0.9),
    (r"\bno (?:tengo|hay|dispongo de|encuentro|encontr[eé]|contiene[n]?|proporciona[n]?) (?:\w+ ){0,3}?informaci[oó]n\b|\bno (?:se )?(?:menciona|especifica|indica)n?\b", 0.8),
    # Italian, Portuguese
    (r"(?:^|[.!?,;:\n] ?)(?:mi dispiace,? )?(?:ma )?non (?:lo )?so(?:\s*[.!,;]|\s*$| (?:la risposta|chi|cosa|quando|dove|quale|se)\b)|\bnon ne ho idea\b|\bnon (?:ho|ci sono|dispongo di|trovo|contiene|contengono) (?:\w+ ){0,3}?informazioni\b|\bnon (?:viene |[eè] )?(?:menzionat[oa]|specificat[oa]|indicat[oa]|menziona)\b", 0.85),
    (r"\b(?:eu )?n[aã]o sei(?:\s*[.!,;]|\s*$| (?:a resposta|quem|o que|quando|onde|qual|se)\b)|\bn[aã]o fa[cç]o ideia\b|\bn[aã]o (?:tenho|h[aá]|disponho de|encontrei|cont[eé]m) (?:\w+ ){0,3}?informa[cç](?:[aã]o|[oõ]es)\b|\bn[aã]o (?:[eé] )?(?:mencionad[oa]|especificad[oa]|menciona)\b", 0.85),
    # Dutch, Polish
    (r"\bik weet (?:het|dat) (?:helaas |ook )*niet\b|\bgeen idee\b|\bgeen (?:\w+ )?informatie\b|\b(?:niet|nergens) (?:vermeld|genoemd)\b|\bnie wiem\b|\bnie (?:mam|ma|zawieraj?[aą]?) (?:\w+ ){0,3}?informacji\b", 0.85),
    # Russian, Chinese, Japanese, Korean
    (r"(?:я )?не знаю(?:\s*[.!,;]|\s*$| ответ| кто| что| когда| где)|(?:нет|не содержит|не содержат|не наш\pL+) (?:\pL+ ){0,3}?информации|не (?:упомина\pL+|указан\pL*)", 0.85),
    (r"我?(?:并)?不(?:知道|清楚|确定)(?:答案|。|，|$)|(?:没有|未|沒有)(?:提到|提及|提供|包含|找到|说明)[^。！？\n]{0,12}|(?:无法|無法)(?:确定|確定|得知|判断|判斷)|没有(?:相关|足够的|任何)?(?:信息|資訊|资料)", 0.8),
    (r"(?:分|わ)かりません|(?:情報|記載|言及)(?:が|は)(?:ありません|ございません|見つかりません|含まれていません)|存じ(?:ません|上げません)|모르겠습니다|모릅니다|정보가 (?:없|부족)|(?:언급|명시)되(?:어|지) ?(?:있지 )?않", 0.85),
)  # fmt: skip
"""(RE2 expression, score) of words that say so; without regard to case, apostrophes straight."""
