"""What programs print and people paste, drawn at random: none of it is prose and none of it gibberish."""

import json
import random
from collections.abc import Callable, Mapping

OPENINGS = (
    "What is this?\n", "Why does my script print this:\n\n", "Decode the following please: ", "Here is my input\n",
    "Explain these lines to me.\n\n", "Sum up:\n", "Is there anything wrong with ", "convert to csv: ", "",
)  # fmt: skip
_HEX = "0123456789abcdef"
_B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_WORDS = (
    "user order item price total status error server cache node index region account customer date type name value count "
    "size north south red blue green small large active pending failed paris berlin london tokyo invoice shipment widget "
    "sensor"
).split()
_NAMES = (
    "Anna Müller|John Smith|Wei Zhang|Maria García|Ahmed Hassan|Olga Petrova|Kwame Mensah|Yuki Tanaka|Priya Sharma|Lars "
    "Nilsson|Zoë O'Brien|Jean-Luc Moreau|Thu Nguyễn|Paweł Kowalski|Fatima Zahra|Carlos Souza|Ivana Horvat|Siobhán Walsh"
).split("|")


def _chars(rng: random.Random, alphabet: str, low: int, high: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(low, high)))


def _uuid(rng: random.Random) -> str:
    digits = _chars(rng, _HEX, 32, 32)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _log_line(rng: random.Random) -> str:
    day = f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}.{rng.randint(0, 999):03}"
    stamp = f"{day}T{clock}Z"
    return rng.choice((
        f"{stamp} {rng.choice(('INFO', 'WARN', 'ERROR', 'DEBUG'))} [{rng.choice(_WORDS)}-{rng.randint(1, 9)}] "
        f"{rng.choice(_WORDS)}={_chars(rng, _HEX, 6, 12)} {rng.choice(_WORDS)} {rng.choice(_WORDS)} "
        f"took {rng.randint(1, 999)}ms",
        f'10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.1 - - [{stamp}] "GET /{rng.choice(_WORDS)}/{rng.randint(1, 9999)}'
        f'?q={rng.choice(_WORDS)} HTTP/1.1" {rng.choice((200, 301, 404, 500))} {rng.randint(100, 99999)} "-" "curl/8.5.0"',
        f"kernel: [{rng.randint(1, 99999)}.{rng.randint(0, 999999):06}] usb {rng.randint(1, 4)}-{rng.randint(1, 9)}: new "
        f"high-speed USB device number {rng.randint(1, 99)} using xhci_hcd",
        f"  at com.{rng.choice(_WORDS)}.{rng.choice(_WORDS)}.{rng.choice(_WORDS).title()}Service.{rng.choice(_WORDS)}"
        f"({rng.choice(_WORDS).title()}Service.java:{rng.randint(10, 900)})",
    ))  # fmt: skip


def _json(rng: random.Random) -> str:
    def value(depth: int) -> object:
        draw = rng.random()
        if depth and draw < 0.35:
            return {
                rng.choice(_WORDS) + rng.choice(("", "_id", "Name")): value(depth - 1) for _ in range(rng.randint(1, 5))
            }
        if depth and draw < 0.5:
            return [value(depth - 1) for _ in range(rng.randint(1, 5))]
        return rng.choice(
            (rng.randint(0, 99999), rng.random(), rng.choice(_WORDS), True, None, _uuid(rng), rng.choice(_NAMES))
        )

    rows = [{word: value(2) for word in rng.sample(_WORDS, 5)} for _ in range(rng.randint(1, 4))]
    return json.dumps(rows, separators=rng.choice(((",", ":"), (", ", ": "))), ensure_ascii=rng.random() < 0.5)[:2500]


def _table(rng: random.Random) -> str:
    mark = rng.choice((",", "\t", " | ", ";"))
    columns = [rng.choice(("word", "number", "name", "money", "code")) for _ in range(rng.randint(3, 7))]

    def cell(column: str) -> str:
        return {
            "word": rng.choice(_WORDS), "number": f"{rng.uniform(0, 1000):.{rng.randint(0, 4)}f}",
            "name": rng.choice(_NAMES),
            "money": f"${rng.randint(1, 9999):,}.{rng.randint(0, 99):02}",
            "code": _chars(rng, "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", 4, 9),
        }[column]  # fmt: skip

    lines = [mark.join(rng.sample(_WORDS, len(columns)))]
    return "\n".join(lines + [mark.join(map(cell, columns)) for _ in range(rng.randint(4, 20))])


def _formula(rng: random.Random) -> str:
    symbols = (
        r"x y z \alpha \beta \sum_{i=1}^{n} \frac{a}{b} \int_0^\infty e^{-x^2} \mathbb{R} f(x) \leq \partial \sqrt{n+1} "
        r"= + - \cdot"
    )
    plain = "x y² ∑ ∫ dx = ± √n π α β ≤ ≥ → ∀ε>0 ∃δ sin(x) log₂ n O(n log n) f′(x) (a+b)² 3.14 ∈ ℝ"
    symbols_of = rng.choice((symbols, plain)).split()
    return " ".join(rng.choices(symbols_of, k=rng.randint(20, 60)))


_SLANG = (
    "lol omg idk tbh ngl fr brb smh imo btw rofl lmao thx pls plz u r ur gonna wanna kinda sorta ppl bc cuz rn tho bruh bro "
    "dude yo yeet vibes lowkey highkey sus cap nocap gg wp afk irl dm ty np hmu ikr wth jk xoxo <3 :) :D ;-) xD haha hahaha "
    "😂 🔥 🙏 2nite gr8 l8r b4 w8 m8 c u tmrw nvm ofc the is it to me my was so what this that with for"
).split()
_GROUPS = tuple(
    group.split()
    for group in (
        "apples bananas oranges lemons grapes pears plums cherries peaches melons berries",
        "salt pepper oregano basil garlic onion thyme cumin paprika olive oil vinegar butter flour eggs milk sugar",
        "hammer nails screws drill saw pliers tape glue wrench bolts ladder paint brush",
        "socks shirt trousers jacket coat scarf gloves belt shoes hat dress skirt",
        "python java rust kotlin swift golang haskell ruby scala docker kubernetes terraform ansible jenkins",
        "marketing seo ads campaign brand audience reach clicks leads funnel conversion landing page budget",
        "violin cello flute oboe trumpet drums piano guitar bass harp organ",
        "monday tuesday wednesday thursday friday january february march april may june july",
        "cinematic lighting, 8k, ultra detailed, trending, portrait, bokeh, oil painting, fantasy, volumetric, masterpiece",
        "error exception timeout refused unreachable denied fatal warning overflow deadlock segfault stacktrace",
    )
)


def _pattern(rng: random.Random) -> str:
    atoms = (
        r"\d{3}",
        r"[a-z]+",
        r"(?:foo|bar)",
        r"\s*",
        r"^",
        r"$",
        r"\w+@\w+\.com",
        r"[^,]*",
        r".*?",
        r"(?P<year>\d{4})",
        r"\b",
        r"[A-Za-z0-9_-]{2,}",
        r"\/",
        r"(\+49)?",
        r"|",
    )
    return "\n".join("".join(rng.choices(atoms, k=rng.randint(4, 14))) for _ in range(rng.randint(1, 5)))


def _shell(rng: random.Random) -> str:
    commands = (
        "grep -rn 'TODO' src | wc -l",
        "find . -name '*.py' -exec sed -i 's/a/b/g' {} +",
        "awk -F, '{print $2}' x.csv | sort | uniq -c",
        "tar xzvf a.tgz -C /tmp && rm -rf $DIR",
        "curl -sSL https://x.example/i.sh | bash -s -- -y",
        "docker run --rm -it -v $PWD:/app -p 8080:80 img:latest",
        "kubectl get pods -n prod -o json | jq '.items[].status'",
        "ssh -i ~/.ssh/k -L 5432:db:5432 u@h",
        "for f in *.log; do echo $f; done",
        "ps aux | grep java | awk '{print $2}' | xargs kill -9",
        "chmod +x ./run.sh; ./run.sh > out.txt 2>&1 &",
        "export PATH=$HOME/bin:$PATH",
    )
    return rng.choice(("\n", " && ", "; ", "\n$ ")).join(rng.sample(commands, rng.randint(2, 8)))


MAKERS: Mapping[str, Callable[[random.Random], str]] = {
    "slang": lambda r: " ".join(r.choices(_SLANG, k=r.randint(12, 50))),
    "lists": lambda r: r.choice((", ", "\n", "\n- ", " ", "; ")).join(
        r.sample(group := r.choice(_GROUPS), r.randint(6, len(group)))
    ),
    "patterns": _pattern,
    "shell lines": _shell,
    "base64": lambda r: _chars(r, _B64, 60, 900) + "=",
    "hexadecimal": lambda r: " ".join(_chars(r, _HEX, n, n) for n in [r.choice((2, 4, 8, 32, 64))] * r.randint(10, 40)),
    "identifiers": lambda r: r.choice(("\n", ", ", " ")).join(_uuid(r) for _ in range(r.randint(3, 15))),
    "keys": lambda r: "\n".join(
        f"{r.choice(_WORDS).upper()}_KEY={_chars(r, _B64[:62], 20, 48)}" for _ in range(r.randint(3, 12))
    ),
    "logs": lambda r: "\n".join(_log_line(r) for _ in range(r.randint(2, 12))),
    "json": _json,
    "tables": _table,
    "formulas": _formula,
    "names": lambda r: r.choice((", ", "\n", "; ")).join(r.choices(_NAMES, k=r.randint(8, 30))),
    "word lists": lambda r: r.choice((", ", "\n", " ")).join(r.choices(_WORDS, k=r.randint(15, 60))),
    "numbers": lambda r: r.choice((" ", ", ", "\n")).join(
        str(round(r.uniform(-1e4, 1e4), r.randint(0, 5))) for _ in range(r.randint(15, 60))
    ),
    "sequences": lambda r: "\n".join(
        _chars(r, r.choice(("ACGT", "ACDEFGHIKLMNPQRSTVWY")), 60, 60) for _ in range(r.randint(2, 9))
    ),
    "addresses": lambda r: "\n".join(
        f"https://{r.choice(_WORDS)}.example.com/{r.choice(_WORDS)}/{_chars(r, _B64[:62], 5, 22)}"
        f"?{r.choice(_WORDS)}={r.randint(1, 999)}&utm_{r.choice(_WORDS)}={r.choice(_WORDS)}"
        for _ in range(r.randint(2, 10))
    ),
    "moves": lambda r: " ".join(
        f"{i}. {r.choice('NBRQK')}{r.choice('abcdefgh')}{r.randint(1, 8)} "
        f"{r.choice('abcdefgh')}x{r.choice('abcdefgh')}{r.randint(1, 8)}"
        for i in range(1, r.randint(12, 40))
    ),
    "art": lambda r: "\n".join("".join(r.choices("/\\_|-. '()<>oO*", k=30)).rstrip() for _ in range(r.randint(4, 10))),
}  # fmt: skip
