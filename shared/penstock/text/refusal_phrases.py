"""How answers decline, in the languages that they are most often written in."""

# ruff: noqa: E501 - an expression is read as one line
from __future__ import annotations

__all__ = ["ANY_VERB", "DECLINES", "NOT_DECLINED", "OFFERS", "TURNS"]

_ADVERBS = (
    r"(?:,? ?\b(?:\w+ly|also|just|even|still|therefore|thus|in good (?:conscience|faith)|under any circumstances|here"
    r"|at this time|at the moment|right now|currently|to|be able to|ever|as an ai|in any way|or will not|and will not|or won't"
    r"|and won't|or should not)\b,?){0,4} ?"
)
_NOT_ABLE = (
    r"(?:can'?t|cannot|can not|could(?:n't| not) in good|won'?t|will not|shall not|shouldn't|should not|may not|must not|mustn't"
    r"|would(?:n't| not) (?:feel|be) (?:able to|comfortable|right|willing to)|have no (?:wish|desire|plans?|way) (?:to|of)"
    r"|(?:am|are|'m|'re) unable to|are not able to|aren't able to|am not able to|'m not able to|am not going to|'m not going to|am not in a position to"
    r"|'m not in a position to|(?:am|'m) not (?:allowed|permitted|willing|authori[sz]ed|prepared|supposed|equipped"
    r"|programmed|designed|trained|built|configured|set up|meant|here) to|(?:am|'m) (?:prohibited|restricted|barred|prevented"
    r"|forbidden) from|(?:am|'m) not comfortable|do(?: not|n't) feel (?:comfortable|right)|do(?: not|n't) (?:want|wish) to"
    r"|refuse to|decline to|have no intention of|do(?: not|n't) have the (?:ability|authority|capability|permission) to"
    r")"
)
_DO_FOR_YOU = (
    r"(?:help(?:ing)?|assist(?:ing|ance)?|aid(?:ing)?|provid(?:e|ing)|giv(?:e|ing)|offer(?:ing)?|shar(?:e|ing)|fulfil+(?:ing)?"
    r"|compl(?:y|ying)|do(?:ing)? (?:that|this|it|so|what|anything)|support(?:ing)?|creat(?:e|ing)|writ(?:e|ing)|generat(?:e|ing)"
    r"|produc(?:e|ing)|answer(?:ing)?|respond(?:ing)?|engag(?:e|ing)|participat(?:e|ing)|tak(?:e|ing) part|discuss(?:ing)?"
    r"|complet(?:e|ing)|continu(?:e|ing)|proceed(?:ing)?|advise you|tell(?:ing)? you"
    r"|show(?:ing)? you|explain(?:ing)?|describ(?:e|ing)|teach(?:ing)?|guid(?:e|ing)|instruct(?:ing)?|walk(?:ing)? you"
    r"|facilitat(?:e|ing)|promot(?:e|ing)|encourag(?:e|ing)|endors(?:e|ing)|condon(?:e|ing)|reveal(?:ing)?|disclos(?:e|ing)"
    r"|translat(?:e|ing)|draft(?:ing)?|compos(?:e|ing)|role-?play(?:ing)?|pretend(?:ing)?|act(?:ing)? (?:as|like)"
    r"|carry(?:ing)? out|perform(?:ing)?|process(?:ing)?|honou?r(?:ing)?|accommodat(?:e|ing)|grant(?:ing)?|oblige|entertain"
    r"|mak(?:e|ing) (?:that|this|jokes?|up|such|any|a|fun)|speculat(?:e|ing)|talk(?:ing)? about|go(?:ing)? into|contribut(?:e|ing)"
    r"|be (?:of|a part|part|involved|your)|be (?:able to )?(?:help|assist)|ignor(?:e|ing) (?:my|these|those|the)"
    r"|bypass(?:ing)?|output(?:ting)?|list(?:ing)?|say(?:ing)? (?:such|anything like)|follow(?:ing)? (?:that|this|those|these|your|such)"
    r"|enabl(?:e|ing)|design(?:ing)?|develop(?:ing)?|build(?:ing)?|pass on|hand over|let you|allow(?:ing)?|go (?:along|there|through with)"
    r"|agree to|accept|meet (?:that|this|your)|with (?:that|this|your|the) (?:request|task|question))"
)

_WONT = r"(?:can'?t|cannot|can not|won'?t|will not|shall not|refuse to|decline to)"

DECLINES: tuple[tuple[str, float], ...] = (
    # English
    (r"\b(?:i|we) ?" + _NOT_ABLE + r" ?" + _ADVERBS + r"(?:to |from |with |in |about )?" + _DO_FOR_YOU + r"\b", 0.9),
    (r"\b(?:sorry|afraid)\b,?(?: but| however)?,?(?: that)? (?:i|i'm|i am|we|we're|this|that|that's|this is|it|it's|such|your request)\b[^.!?\n]{0,40}\b(?:can'?t|cannot|can not|won'?t|will not|unable|not able|not possible|not something|must decline|not allowed|not permitted|not appropriate|no help)\b", 0.9),
    (r"\b(?:sorry|afraid)\b,?(?: but)?,? (?:no|not|can'?t|cannot|won'?t|unable)\b", 0.7),
    (r"(?:^|[.!?\n] ?)(?:i )?(?:sorry|apologies|my apologies|apologize)\b,?[^.!?\n]{0,60}\b(?:i|that|this|we|it)\b[^.!?\n]{0,20}(?:can'?t|cannot|can not|won'?t|will not|unable|not able|not something|not possible|decline|not allowed)\b", 0.9),
    (r"(?:^|[.!?\n] ?)(?:no,? ?|sorry,? ?(?:but )?)(?:i )?(?:can'?t|cannot|won'?t|will not|refuse)(?: do (?:that|this|it))?\s*(?:[.!]|$)", 0.85),
    (r"\bi(?:'ll| will|'m| am|'d like to| must| have to| need to| do| now)? ?(?:going to |gonna |have to |need to |must |afraid i must |respectfully |politely |firmly |regretfully |kindly )*(?:decline|refuse|say no|turn (?:this|that|you) down)\b|\bi(?:'ll| will|'m going to| have to| must) (?:have to )?pass(?: on (?:this|that))?(?: one)?\s*(?:[.,;!]|$)", 0.85),
    (r"\bi (?:choose|prefer|opt|elect|intend|have chosen|have decided) not to\b|\bi(?:'d| would) (?:rather|prefer) (?:that )?(?:we|you) (?:\w+ )?(?:didn't|don't|not|talked?|discuss\w*|focus\w*|chang\w+)\b", 0.75),
    (r"\bi(?:'ve| have)? (?:been|was|am|'m) (?:\w+ )?(?:told|instructed|asked|directed|programmed|advised|required|ordered) (?:not|never) to\b|\bmy (?:instructions|role|job|rules) (?:is|are|say) (?:not|never) to\b", 0.7),
    (r"(?:\bnot|n't) (?:possible|permissible|allowed|an option|appropriate) for me\b|(?:\bnot|n't) (?:my place|mine) to\b|\bagainst (?:the |my |our )?(?:rules|law|polic(?:y|ies)|principles|guidelines) for me\b", 0.65),
    (r"\bi do(?: not|n't) (?:do|write|give|provide|offer|handle|produce|answer|discuss|share|generate) (?:that|this|those|these|such|legal|medical|financial|personal|requests|questions (?:about|of))\b", 0.65),
    (r"\bi (?:won'?t|will not|can'?t|cannot|refuse)\s*(?:[.!;]|$)|\b(?:please )?(?:don't|do not|stop) ask(?:ing)? me (?:to|for|that|this|again)\b", 0.65),
    (r"(?:^|\n)(?:can'?t|cannot|can not|won'?t|unable to) (?:do|help|answer|share|say|assist|give|provide|discuss|comply)\b", 0.75),
    (r"\b(?:i|and|assistant|bot)(?: am| 'm|'m)? can only (?:help|assist|answer|provide|respond|discuss|talk|support)\b|\bonly (?:\w+ ){1,5}(?:can|may|will) be (?:answered|discussed|handled|processed)(?: here)?\b", 0.6),
    (r"\bi(?:'d| would|'ll| will)? (?:much )?(?:rather|prefer) not\b", 0.75),
    (r"(?:\bnot|n't|\bnothing) (?:something|a (?:request|topic|task|thing|subject|role|question|matter)|anything|one)?(?: that| which)? ?(?:i|we)(?:'m| am|'d| would)? ?(?:can|could|will|be|able|comfortable|willing|allowed|prepared|do|feel|provide|help|assist|engage|discuss|cover|comment|handle|talk|get into|go into|touch|support|share|answer|speak|act on)\b", 0.85),
    (r"\b(?:against|violates?|violating|violation of|contrary to|outside|beyond|not within|prohibited by|inconsistent with|conflicts? with|not aligned with|forbidden by|breach(?:es)?|break(?:s)?) (?:of )?(?:my|our|openai'?s?|anthropic'?s?|google'?s?|the (?:content|usage|safety|ethical|platform)) (?:\w+ ){0,3}(?:guidelines?|polic(?:y|ies)|programming|principles|values|terms|rules|ethics|ethical|scope|safety|standards|boundaries|instructions|use|purpose)\b", 0.7),
    (r"\bmy (?:\w+ ){0,3}(?:guidelines|polic(?:y|ies)|programming|principles|instructions|training|rules|ethics) (?:\w+ ){0,2}(?:prevents?|prohibits?|forbids?|do(?:es)? not allow|do(?:es)?n't allow|restricts?|stops?|keeps?|bars?)\b", 0.8),
    (r"\b(?:not (?:appropriate|ethical|right|okay|ok|acceptable|possible|safe|responsible)|inappropriate|unethical|irresponsible|wrong|illegal|unsafe) for me to\b", 0.8),
    (r"\b(?:it (?:is|would be|'s)|would be) (?:highly |deeply |both )?(?:inappropriate|unethical|irresponsible|wrong|illegal|not appropriate|not ethical)(?: and \w+)? to (?:provide|help|assist|give|share|create|write|generate|discuss|promote|encourage|offer|make|engage|support)\b", 0.6),
    (r"\bas (?:an? |a )?(?:ai|artificial|large|language|responsible|ethical|safe|helpful|virtual|digital|text|chat)[^.!?\n]{0,80}\b(?:i|my)\b[^.!?\n]{0,30}(?:can'?t|cannot|can not|unable|not able|won'?t|must not|should not|shouldn't|not (?:allowed|programmed|designed|permitted|capable))\b", 0.75),
    (r"\bi (?:do not|don't|cannot|can't|will not|won't) (?:condone|endorse|promote|encourage|support|tolerate|think (?:it|that|this)(?:'s| is| would be) (?:appropriate|right|a good idea|ethical)|believe (?:it|that|this)(?:'s| is| would be) (?:appropriate|right|ethical))\b", 0.65),
    (r"(?:^|[.!?\n] ?)(?:(?:unfortunately|regrettably),? ?)?(?:(?:i'm|i am) )?(?:unable|not able) to (?:comply|assist|help|fulfil+|process|provide|answer|complete|generate|do (?:that|this|so)|respond|share|discuss)", 0.85),
    (r"\b(?:unfortunately|regrettably),? (?:that|this|it)(?:'s| is| request is)? (?:not (?:something|possible|allowed|permitted)|beyond|outside|a request|against)", 0.75),
    (r"\b(?:your |this |that |the )?(?:request|query|question|prompt) (?:cannot|can't|can not|will not|must not|won't) be (?:fulfil+ed|completed|processed|answered|supported|honou?red|granted)\b|(?:^|\n)(?:\w+ ){0,2}request (?:denied|refused|declined|rejected|blocked)\b", 0.7),
    (r"\b(?:this|that|it|one)(?:'s| is| request is| question is| topic is)? (?:is )?(?:off[- ]limits|off the table|a no from me|where i draw the line)|\bi draw the line\b|\bno can do\b|\bnot going to happen\b|\bcount me out\b", 0.8),
    (r"\bi (?:can|am able to|'m able to|may|will|am allowed to|am here to) only (?:help|assist|answer|provide|respond|discuss|talk|support)|\bi(?:'m| am) only (?:able|allowed|permitted|here|designed|programmed) to\b", 0.6),
    (r"\bi(?:'m| am) not (?:comfortable|willing|at liberty|going)\b|\bi'm going to (?:stop|pause|step back|have to stop)\b|\bi have to stop (?:you|here)\b", 0.7),
    (r"\b(?:let'?s|can we|could we|i suggest we|shall we) (?:not|talk about something else|change the (?:topic|subject)|keep (?:this|things|it) (?:respectful|appropriate|safe)|discuss something else|focus on something (?:else|more|positive))", 0.5),
    (r"\bi (?:do not|don't) (?:have|possess) (?:access|the ability|the capability|the information|any information|real[- ]time|current|enough information|the (?:capacity|necessary))", 0.4),
    (r"\bi (?:can'?t|cannot|(?:am|are|'m|'re) unable to|are not able to|aren't able to|am not able to|'m not able to) (?:access|browse|view|open|search|predict|verify|diagnose|interact|send|place|book|make (?:calls|purchases)|download|watch|listen)\b", 0.5),
    (r"\bi do(?: not|n't) (?:\w+ly )?(?:help|assist|provide|engage|participate|generate|produce|create|comply|facilitate|discuss|share|offer|write|fulfil+)\b", 0.75),
    (r"\bi (?:cannot|can't|can not) (?:and (?:will|shall|should|must|would) not|or (?:will|would) not)\b", 0.9),
    (r"\bi(?:'m| am) (?:really )?(?:going to|gonna) have to (?:say no|decline|refuse|pass|stop)", 0.9),
    (r"\b(?:is|are|would be) (?:strictly )?(?:illegal|harmful|dangerous|unethical|wrong)\b[^.!?\n]{0,80}\b(?:i|we) (?:can'?t|cannot|won'?t|will not|do not|don't)\b", 0.7),
    (r"\b(?:that|this|it|what you(?:'re| are) asking(?: for)?|\w+ing (?:\w+ ){1,5})(?:'s| is|'d be| would be)? (?:simply |really )?(?:something|a thing|(?:a|one) (?:thing|request|line|step|step too far)|territory)(?: that| which)? (?:i|we) (?:can'?t|cannot|won'?t|will not|don'?t|do not|refuse|decline|would not|wouldn't|must not|am not|'m not|have to (?:refuse|decline))", 0.85),
    (r"\b(?:that|this|it|which)(?:'s| is| falls| lies| goes)? (?:\w+ )?(?:beyond|outside|out of|past) (?:of )?(?:what i(?:'m| am| can)|my (?:remit|scope|role|reach|area|purpose|job)|the scope|bounds|the question)", 0.75),
    (r"\b(?:i(?:'ll| will|'m going to| am going to| have to| must| need to)|let me) (?:have to )?(?:stay out of|leave (?:it|this|that|the matter) (?:there|here|alone|to|at that)|sit this one out|stop (?:here|there|short)|end (?:this|the conversation|it here)|give (?:this|that) (?:one )?a miss|not be (?:\w+ing|part|able|the one)|keep (?:that|this|it|those) (?:to myself|confidential|private))", 0.75),
    (r"\bi(?:'m| am) not (?:the right (?:place|tool|assistant|one|person)|(?:really )?able to|qualified to|in a position)\b|\bi(?:'m| am) unable to\b", 0.6),
    (r"\b(?:there(?:'s| is) no (?:way|chance)|under no circumstances|in no way|by no means|never) (?:that )?(?:i|will i|would i|am i|can i|shall i|'ll i)\b|\bi will never\b", 0.6),
    (r"(?:^|[.!?\n] ?)(?:absolutely not|hard (?:no|pass)|not a chance|out of the question|no deal|i'll pass)\b", 0.6),
    (r"\b(?:that|this|such|the|those|these) (?:\w+ ){1,3}(?:is|are|must remain|stays?|has to stay) (?:strictly )?(?:confidential|private|internal|classified|not (?:for me to|mine to|to be) (?:share|shared|reveal|disclose|disclosed|give))\b", 0.6),
    (r"\b(?:can'?t|cannot|can not|won'?t|will not|may not|must not) be (?:shared|provided|disclosed|revealed|given out|discussed|answered|fulfil+ed|supported)\b[^.!?\n]{0,40}\b(?:here|by me|with you|in this|at all)?", 0.5),
    # German
    (r"\b(?:ich|wir|dabei|das|hier|damit|dir|ihnen|leider|dazu|darüber)\b[^.!?\n]{0,40}\b(?:kann|k[öo]nnen|darf|d[üu]rfen|werde|m[öo]chte|will)\b[^.!?\n]{0,60}\bnicht\b[^.!?\n]{0,60}\b(?:helfen|unterst[üu]tzen|weiterhelfen|behilflich|geben|bereitstellen|beantworten|erf[üu]llen|nachkommen|erstellen|schreiben|tun|anbieten|weitergeben|liefern|mitteilen|verraten|machen|leisten|diskutieren|preisgeben)\b", 0.85),
    (r"\btut mir leid[^.!?\n]{0,80}\b(?:nicht|keine?n?|unm[öo]glich)\b|\b(?:muss|m[öo]chte) (?:ich )?(?:\w+ ){0,4}ablehnen\b|\bbin nicht in der lage\b|\blehne ich (?:\w+ )?ab\b|\bich (?:kann|darf|werde|m[öo]chte)\b[^.!?\n]{0,40}\bkeine?\b[^.!?\n]{0,80}\b(?:auskunft|geben|bereitstellen|erstellen|schreiben|anbieten|liefern|leisten)\b", 0.85),
    # French
    (r"\bje ne (?:peux|suis|pourrai|puis|saurais|vais|veux|souhaite)\b ?(?:malheureusement |vraiment )?(?:pas|en mesure|r[ée]pondre|vous|t')[^.!?\n]{0,60}\b(?:aider|assister|fournir|donner|r[ée]pondre|faire|cr[ée]er|[ée]crire|g[ée]n[ée]rer|satisfaire|partager|autoris[ée]e?|mesure|acc[ée]der|proposer|accomplir|divulguer|traiter)", 0.85),
    (r"\bd[ée]sol[ée]e?\b[^.!?\n]{0,40}\b(?:mais )?je ne\b|\bje (?:dois|me vois (?:oblig[ée]|contraint)e? de) (?:\w+ )?(?:refuser|d[ée]cliner)\b|\bje refuse\b|\bje pr[ée]f[èe]re (?:ne pas|m'abstenir)\b|\bje n'ai pas (?:le droit|l'autorisation)\b|\bil m'est impossible de\b", 0.85),
    # Spanish
    (r"\bno (?:puedo|podemos|podr[ée]|estoy en condiciones de|me es posible|voy a|debo|tengo permitido|tengo permiso|quiero|me siento c[óo]mod[oa]) ?(?:\w+ ){0,3}?(?:ayudar\w*|asistir\w*|proporcionar\w*|dar\w*|ofrecer\w*|compartir\w*|cumplir\w*|hacer\w*|responder\w*|crear\w*|escribir\w*|generar\w*|apoyar\w*|participar|brindar\w*|revelar\w*|satisfacer|continuar|facilitar\w*|atender)", 0.85),
    (r"\blo siento\b,?[^.!?\n]{0,30}\bno (?:puedo|podemos|me)\b|\b(?:debo|tengo que) (?:\w+ )?(?:rechazar|negarme|declinar)\b|\bme niego a\b", 0.85),
    # Italian, Portuguese
    (r"\bnon (?:posso|possiamo|sono in grado di|mi [èe] possibile|intendo|sono autorizzat[oa] a)(?: \w+){0,3}? ?(?:aiutart?\w*|aiutare\w*|assistert?\w*|fornir\w*|dare|darti|offrir\w*|condivider\w*|soddisfare|farlo|fare|rispondere|creare|scrivere|generare|supportare|divulgare)|\b(?:mi dispiace|spiacente)\b[^.!?\n]{0,30}\bnon posso\b|\bdevo (?:\w+ )?(?:rifiutare|declinare)\b", 0.85),
    (r"\bn[ãa]o (?:posso|podemos|sou capaz de|estou autorizad[oa] a|consigo|vou|devo|me [ée] poss[íi]vel)(?: \w+){0,3}? ?(?:ajud\w+|auxili\w+|fornec\w+|dar\b|oferec\w+|compartilh\w+|partilh\w+|cumprir|atender|fazer|responder|criar|escrever|gerar|apoiar|continuar|divulgar|revelar)|\b(?:desculpe|lamento|sinto muito)\b[^.!?\n]{0,40}\bn[ãa]o (?:posso|consigo)\b|\b(?:devo|preciso|tenho que) (?:\w+ )?recusar\b", 0.85),
    # Dutch, Swedish, Danish and Norwegian, Polish, Turkish
    (r"\bik (?:kan|mag|zal|wil|ga)\b[^.!?\n]{0,50}\b(?:niet|geen)\b[^.!?\n]{0,50}\b(?:helpen|geven|verstrekken|beantwoorden|voldoen|maken|schrijven|doen|delen|bieden|ondersteunen|meewerken)\b|\bhet spijt me\b[^.!?\n]{0,40}\b(?:niet|geen)\b|\bmoet ik (?:\w+ )?weigeren\b", 0.85),
    (r"\bjag (?:kan|f[åa]r|vill|t[äa]nker) (?:tyv[äa]rr )?inte\b[^.!?\n]{0,40}\b(?:hj[äa]lpa|ge|svara|skapa|skriva|dela|bist[åa]|g[öo]ra)\b|\bjeg kan (?:desv[æa]rre |dessverre )?ikke\b[^.!?\n]{0,40}\b(?:hj[æa]lpe?|give?|gi|svare?|skrive|lave|lage|dele|bist[åa])\b", 0.85),
    (r"\bnie (?:mog[ęe]|mo[żz]emy|jestem w stanie|b[ęe]d[ęe]|zamierzam)\b[^.!?\n]{0,40}\b(?:pom[óo]c|pomaga[ćc]|udzieli[ćc]|dostarczy[ćc]|odpowiedzie[ćc]|spe[łl]ni[ćc]|stworzy[ćc]|napisa[ćc]|zrobi[ćc]|poda[ćc]|udost[ęe]pni[ćc]|wygenerowa[ćc])|\bprzykro mi\b[^.!?\n]{0,30}\bnie\b|\bmusz[ęe] odm[óo]wi[ćc]", 0.85),
    (r"\b(?:yard[ıi]mc[ıi] olamam|yard[ıi]m edemem|yapamam|sa[ğg]layamam|veremem|payla[şs]amam|kar[şs][ıi]layamam|yard[ıi]mc[ıi] olam[ıi]yorum|reddetmek zorunday[ıi]m|yerine getiremem|olu[şs]turamam|yazamam)", 0.85),
    # Russian, Ukrainian, Czech
    (r"(?:я |мы )?не (?:могу|можем|смогу|буду|в состоянии|имею права|хочу|готов[а]?)\s(?:\pL+\s){0,4}?(?:помо\pL+|предостав\pL+|выполн\pL+|ответ\pL+|созда\pL+|написа\pL+|дать|сдела\pL+|подел\pL+|обсужда\pL+|сгенерир\pL+|рассказ\pL+|поддерж\pL+|раскры\pL+|участв\pL+)|(?:извините|простите|к сожалению|сожалею)[^.!?\n]{0,40}не (?:могу|смогу|можем)|вынужден[а]? отказать|я отказываюсь", 0.85),
    (r"(?:я )?не (?:можу|зможу|буду)\s(?:\pL+\s){0,4}?(?:допомог\pL+|надат\pL+|викона\pL+|відповіс\pL+|створ\pL+|написа\pL+|зроби\pL+)|(?:вибачте|на жаль)[^.!?\n]{0,40}не (?:можу|зможу)|\bnemohu\b[^.!?\n]{0,40}(?:pomoci|pom[oů]ct|poskytnout|odpov|vytvo[řr]it|napsat|splnit)", 0.85),
    # Chinese, Japanese, Korean
    (r"(?:我|咱|本)?(?:很?抱歉|对不起|對不起|不好意思|很遗憾|很遺憾)[^。！？\n]{0,30}(?:无法|無法|不能|不可以|不会|不會|不方便|没办法|沒辦法)|我(?:无法|無法|不能|不会|不會|不便|拒绝|拒絕|没办法|沒辦法)[^。！？\n]{0,20}(?:帮助|幫助|帮|幫|协助|協助|提供|回答|满足|滿足|支持|完成|生成|创建|讨论|討論|透露|分享|执行|參與|参与|编写|撰写|写|教|这样做|這樣做|做这|做這|这么做)|(?:无法|無法|不能)(?:为您|为你|為您|為你|向您|向你)?(?:提供|满足|滿足|协助|協助|回答)(?:您|你|该|此|这|這|相关|任何|这类|這類)", 0.85),
    (r"(?:申し訳(?:ありません|ございません|ない)|すみません|ごめんなさい|恐れ入りますが|残念ながら)[^。！？\n]{0,50}(?:できません|できない|お断り|いたしかね|致しかね|お手伝いでき|お答えでき|かねます)|(?:お手伝い|お答え|お応え|提供|対応|協力|回答|支援|ご案内|作成)(?:する)?(?:こと)?(?:は|が|も)?(?:でき(?:ません|かねます|ない)|いたしかねます|致しかねます|しかねます)|お断り(?:し|いた)|(?:それ|これ|その[^。]{0,12})は(?:でき(?:ません|ない|かねます)|お答えでき)", 0.85),
    (r"(?:죄송|미안|유감)[^.!?\n]{0,60}(?:없습니다|없어요|못합니다|않습니다|어렵습니다|할 수 없|드릴 수 없|불가)|(?:도와드릴|도움을 드릴|제공할|제공해 드릴|답변할|답변드릴|알려드릴|작성할|수행할|응할|들어드릴|도와줄) 수(?:는|가)? ?없", 0.85),
    # Arabic, Hebrew, Hindi, Vietnamese, Indonesian, Thai
    (r"(?:آسف|عذر[اًا]+|أعتذر|للأسف)[^.!؟\n]{0,60}(?:لا (?:أستطيع|يمكنني|أقدر|يمكن)|لست قادر|غير قادر|لن أ)|لا (?:أستطيع|يمكنني) (?:\pL+ ){0,2}?(?:مساعد|المساعدة|تقديم|تزويد|الإجابة|إنشاء|كتابة|تلبية|مشاركة|القيام|دعم)", 0.85),
    (r"(?:מצטער|מתנצל|סליחה)[^.!?\n]{0,50}(?:לא (?:יכול|אוכל|ניתן)|אינני)|(?:माफ|क्षमा|खेद)[^।!?\n]{0,80}(?:नहीं|असमर्थ)|मैं (?:\S+ ){0,8}(?:मदद|सहायता|प्रदान|उत्तर|जानकारी)(?: \S+){0,4} (?:नहीं|असमर्थ)", 0.85),
    (r"(?:xin lỗi|rất tiếc)[^.!?\n]{0,50}không thể|tôi không thể (?:\pL+ ){0,2}?(?:giúp|hỗ trợ|cung cấp|trả lời|đáp ứng|tạo|viết|thực hiện|chia sẻ)|(?:maaf|mohon maaf)[^.!?\n]{0,50}(?:tidak (?:bisa|dapat|boleh)|tak boleh)|saya tidak (?:bisa|dapat) (?:\w+ ){0,2}?(?:membantu|memberikan|menyediakan|menjawab|memenuhi|membuat|menulis|melakukan)|(?:ขอโทษ|ขออภัย|เสียใจ)[^\n]{0,60}(?:ไม่สามารถ|ไม่ได้)", 0.85),
)  # fmt: skip
"""(RE2 expression, score) of a sentence that declines; without regard to case, apostrophes straight."""

ANY_VERB = (
    r"(?:^|[.!?\n,;] ?)(?:(?:but|no|so|and|sorry|unfortunately|honestly|however|thanks|i understand[^.,\n]{0,60}|i see[^.,\n]{0,60})[,;:]? ?(?:but )?)?i (?:(?:really|simply|just|still|also) )?"
    + _WONT
    + r" ?(?:\w+ly |just |to ){0,2}(?:be )?\w+"
)
"""A short answer that opens so declines, whatever the verb, if it is not one of :data:`NOT_DECLINED`."""

NOT_DECLINED = (
    _WONT
    + r" ?(?:\w+ly |just |to ){0,2}(?:be )?(?:wait|believe|imagine|see|hear|feel|find|locate|remember|recall|think"
    r"|tell (?:if|whether|how|which|from|for)|know|say (?:for|with|whether|if|exactly|how|that)|sure|certain|there|happier|more"
    r"|bothered|able to (?:attend|make|come|join|meet)|stop|complain|agree more|afford|attend|make it|come|sleep|stand|stress"
    r"|understand|figure|guarantee|promise|confirm|bear|blame|wrap|seem|keep up|get|take|go|eat|live|lie|deny|thank|overstate"
    r"|emphasi[sz]e|even|speak for|forget|count|bore|bother|spoil|repeat|call it|argue|claim|recommend|suggest|help but)\b"
)
"""What one cannot do without declining a task: perceive, be sure, come."""

TURNS = (
    r"\b(?:but|however|that said|nevertheless|still|instead|with that in mind),? (?:here(?:'s| is| are)|i (?:can|could|will|'ll) (?:still )?"
    r"(?:give|provide|offer|tell|explain|share|describe|outline|summari[sz]e|suggest|say|write|show|walk)|in general|generally"
    r"|the (?:general|basic|short|usual)|let me|below|based on|to answer|briefly|typically)\b"
    r"|\bhere(?:'s| is| are) (?:a|an|the|some|what|how|your|my)\b"
)
"""What takes up the task after all."""

OFFERS = (
    r"\b(?:is there (?:anything|something) else|(?:happy|glad|here) to (?:help|assist|discuss|answer|provide)"
    r"|let me know if|feel free to|i encourage you|i(?:'d| would) (?:encourage|urge|recommend|suggest)|please (?:consult|contact|seek|reach out|"
    r"consider|note|refrain|call|speak|ask|remember|talk)|if you (?:or someone you know|have any|need|are (?:struggling|experiencing"
    r"|feeling|in)|'re (?:struggling|experiencing|feeling|in|interested))|instead,? i can|what i can do|i can (?:instead|offer|help with))"
)
"""What goes with declining: an offer of other help, a reference elsewhere."""
