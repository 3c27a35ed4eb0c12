"""Words beside a name that say it is one. All folded (see `lexicon.fold`); sources: the grammar of English, and the
salutations and closings of letters in the languages named.
"""

TITLES = frozenset(
    "mr mrs ms miss mx dr prof professor sir dame madam mme mlle monsieur madame mademoiselle herr frau fraulein "
    "senor senora "
    "senorita don dona signor signora signorina dott dottor dottoressa ing avv lic sr sra srta rev reverend father "
    "sister "
    "captain capt colonel col major maj sgt sergeant lt lieutenant officer judge justice senator president minister "
    "rabbi imam "
    "pan pani hr fru mag doctor drs messrs mesdames meneer mevrouw dhr mevr".split()
)  # fmt: skip
"""Before a name; also between a greeting and a name."""

SUFFIXES = frozenset("jr sr ii iii iv phd md esq".split())

PARTICLES = frozenset(
    "de da do dos das di del della van von der den ten ter te la le du el al bin ibn bint ben af av zu zum y e".split()
)

GREETINGS = frozenset(
    "dear hi hello hey hiya howdy greetings morning afternoon evening thanks bonjour cher chere hola estimado "
    "estimada querido querida "
    "hallo liebe lieber geehrte geehrter caro cara gentile egregio prezado prezada ola beste geachte kjaere kara hej "
    "ciao salut attn "
    "attention welcome goodbye bye sorry congratulations congrats fao".split()
)  # fmt: skip

CLOSINGS = (
    "best regards", "kind regards", "warm regards", "warmest regards", "regards", "sincerely", "sincerely yours",
    "yours sincerely", "yours faithfully", "yours truly", "best", "best wishes", "all the best", "cheers", "thanks",
    "thank you", "many thanks", "thanks again", "thanks in advance", "respectfully", "cordially", "love", "yours",
    "signed", "with gratitude", "mit freundlichen gruessen", "mit freundlichen grußen", "mit freundlichen grussen",
    "viele grusse",
    "liebe grusse", "cordialement", "bien a vous", "saludos", "un saludo", "atentamente", "cordiali saluti",
    "distinti saluti",
    "atenciosamente", "met vriendelijke groet", "med venlig hilsen", "med vanliga halsningar", "xoxo", "take care",
)  # fmt: skip

STRONG_BEFORE = frozenset({
    "name is", "name's", "name", "names are", "call me", "named", "whose name is", "signed by", "contact person",
    "contact name",
    "account holder", "card holder", "cardholder", "on behalf of", "nom", "nombre", "ich heisse", "heisse",
    "je m'appelle", "m'appelle",
    "me llamo", "mi chiamo", "mein name ist", "c/o", "attention of", "people call me", "maiden name", "surname",
    "last name", "first name",
    "name was", "his name", "her name", "my name", "name of", "surname is", "nickname is", "known as", "goes by",
    "passenger", "patient",
    "under the name", "in the name of", "registered to", "belongs to", "issued to", "payable to", "husband", "wife",
    "daughter", "son",
    "name on it is", "mother", "brother", "uncle", "aunt", "cousin", "nephew", "niece", "grandfather", "grandmother",
    "fiance", "fiancee",
    "girlfriend", "boyfriend", "grandson", "granddaughter", "stepfather", "stepmother", "roommate", "flatmate",
    "housemate",
    "grandpa", "grandma", "dad", "mom", "mum", "tenant", "landlord", "beneficiary", "payee", "signatory",
})  # fmt: skip
"""Whatever follows, with a capital and no common word, is a name."""

MEDIUM_BEFORE = frozenset(
    "said says say asked asks replied replies answered answers told tells added adds whispered shouted exclaimed "
    "explained according "
    "by with to from for and met meet meeting know knows knew called call calling email emailed contact contacting "
    "ask asking speak speaking talk talked talking "
    "am i'm this is it's its about see saw heard hear heard tell love loved loves marry married invite invited "
    "invites add remove remind reminded "
    "than thank thanks user customer client employee manager director author writer editor singer actor actress "
    "player artist musician "
    "composer poet painter drummer guitarist producer friend colleague coworker boss neighbor neighbour partner "
    "teacher student nurse doctor lawyer attorney "
    "agent officer detective coach captain president minister senator mayor governor chairman ceo cto cfo founder "
    "founders cofounder "
    "engineer scientist researcher professor analyst journalist reporter director comedian rapper producer dancer "
    "model chef designer inventor "
    "philosopher historian king queen prince princess pope saint emperor duke duchess tribute interview interviewed "
    "featuring feat ft starring like not "
    "ex late young old mister poor leave left leaving after before let lets help helped helping gave give giving "
    "show showed send sent sending pay paid paying bring "
    "between versus vs against without via through of at on because that when where while if but so or as then has "
    "have had did does do was were will would can could "
    "zombie representative assistant secretary supervisor witness victim suspect defendant plaintiff passenger guest "
    "member owner resident "
    "winner champion speaker host presenter dear".split()
)  # fmt: skip
"""Where a person may be named, and other things too."""

PERSONAL_BEFORE = frozenset(
    "said says asked asks replied told tells added whispered shouted met meet meeting marry married singer actor "
    "actress player artist musician "
    "composer poet painter drummer guitarist friend colleague coworker boss neighbor neighbour partner teacher "
    "student nurse doctor lawyer attorney officer "
    "detective coach president minister senator mayor governor chairman ceo founder cofounder engineer scientist "
    "researcher professor analyst journalist "
    "reporter comedian rapper dancer chef designer inventor philosopher historian king queen prince princess pope "
    "saint i'm manager "
    "employee customer author writer editor interviewed starring speak talk talked representative assistant "
    "secretary supervisor witness "
    "victim suspect defendant plaintiff guest remind reminded tribute mister founders invite invited".split()
)  # fmt: skip
"""Said before people and hardly anything else."""

PERSONAL_AFTER = frozenset(
    "asks replied replies answered tells thinks thought knows knew lives lived works worked wrote writes writing "
    "born married died loves loved hates likes liked moved speaks spoke talks talked speaking sang sings sing feels "
    "felt believed emailed texted phoned ran walked walks smiled laughed cried nodded shouted whispered studied "
    "studies graduated taught retired drives drove visited owes speak ate drank slept woke remembers forgot "
    "complained apologized apologised himself herself grew attended earns".split()
)  # fmt: skip
"""Said after people and hardly anything else."""

CORPORATE_AFTER = frozenset(
    "said says asked told adds added announced wants wanted believes explained joined bought sold calls called plays "
    "played began lost "
    "agreed refused gave took sent received teaches visits signed came went comes goes".split()
)  # fmt: skip
"""Said after people, and after companies and teams."""

KINSHIP_AFTER = frozenset(
    "daughter son wife husband mother father brother sister friend boss partner girlfriend boyfriend uncle aunt "
    "cousin parents family birthday phone "
    "number email address house account name card mom dad mum child children kids salary passport ssn car apartment "
    "wedding face voice hand hands eyes hair "
    "grandmother grandfather song album book office desk computer laptop password doctor teacher fan fans novel poem "
    "speech team colleague life death".split()
)  # fmt: skip
"""After a possessive: what a person has."""

NOT_NAMES = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november "
    "december mon tue wed thu fri sat sun jan feb mar apr jun jul aug sep sept oct nov dec christmas easter english "
    "french german spanish italian russian chinese "
    "japanese american british european african asian indian internet google facebook twitter instagram linkedin "
    "whatsapp youtube amazon microsoft apple netflix "
    "wikipedia python java javascript linux windows android iphone docker kubernetes kafka redis postgres mysql iban "
    "ssn zip pin atm api url http https pdf csv json "
    "xml html css sql usa uk eu un nasa nato fbi cia nhs god lord bible jesus christ bot user assistant system admin "
    "mobile desk fax phone tel email address street "
    "avenue road suite apt box psc apo visa mastercard amex paypal bitcoin ceo cto cfo hr it pr ceo faq asap fyi ok "
    "okay yes no note warning "
    "error info id dob cv pc tv gps vip diy ai ml nlp gpu cpu ram usb wifi bluetooth celsius fahrenheit bash "
    "shell fibonacci unix perl rust golang kotlin scala react angular vue django flask pandas numpy "
    "tensorflow pytorch excel powerpoint chatgpt gpt openai roleplay subject re fwd cc bcc dr mr mrs "
    "ms sir madam".split()
)  # fmt: skip
"""Capitalised words that are no part of a person's name unless a given name stands beside them."""

GROUPS = frozenset(
    "english french german spanish italian russian chinese japanese american british european african asian indian "
    "usa uk eu un".split()
)
"""Those of them that name places and groups."""

STREET_TYPES = frozenset(
    "street st avenue ave road rd boulevard blvd lane ln drive dr court ct square sq terrace way parkway highway "
    "crescent close place grove gardens mews row "
    "trail plaza alley walk hill quay loop str strasse straße house flat bridge river lake mountain mountains island "
    "park airport station".split()
)  # fmt: skip

ORGANISATION_WORDS = frozenset(
    "inc ltd llc corp corporation company gmbh group bank university college school hospital institute association "
    "foundation council "
    "committee department ministry force airlines airways times news press records studios motors systems "
    "technologies solutions services "
    "software industries holdings partners international club fc united museum church hotel restaurant street avenue "
    "road square lines "
    "society union league party court agency bureau office center centre store stores market team".split()
)  # fmt: skip
