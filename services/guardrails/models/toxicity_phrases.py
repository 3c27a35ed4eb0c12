"""Sentences written for this project that teach the toxicity classifier what its data do not hold.

Abuse of groups and of people in plain words, and harmless sentences that look like it: negated, reported, about things,
about oneself, of a trade.

Some of it is offensive by nature: it is there to be recognised. Slots: {G} people of a group, {a} its adjective, {I} an
insult, {B} a low thing that people are likened to, {O} a thing or an animal, {X} an abusive sentence, {N} a name.
"""

import random
import re
from collections.abc import Iterator

_ADJECTIVES = (
    "gay, lesbian, trans, bisexual, black, white, asian, african, latino, arab, chinese, mexican, indian, jewish, muslim, "
    "christian, catholic, hindu, disabled, deaf, blind, autistic, old, young, female, male, polish, turkish, romanian, "
    "immigrant, foreign, homeless, fat, poor, refugee"
).split(", ")
_PLURALS = (
    "women, men, gays, lesbians, immigrants, refugees, muslims, jews, christians, hindus, arabs, mexicans, africans, "
    "asians, foreigners, migrants, old people, disabled people, the disabled, trans people, gay people, black people, "
    "white people, chinese people, deaf people, autistic people, homeless people, fat people, feminists, gypsies, "
    "muslim women, girls, poor people, women like her, people like them"
).split(", ")
_INSULTS = (
    "idiot, moron, worthless loser, stupid fool, pathetic clown, disgusting pig, dumb cow, filthy liar, ugly freak, "
    "imbecile, piece of garbage, piece of trash, waste of space, brainless coward, retard, scumbag, dirtbag, creep, "
    "lowlife, jerk, dimwit, sad little man, fat slob, cheap whore, bastard, asshole, dumbass, piece of shit"
).split(", ")
_LOW = (
    "vermin, animals, parasites, rats, cockroaches, a disease, a plague, scum, filth, trash, subhuman, a cancer, pigs, "
    "dirt, savages, insects, garbage, a stain on this country, leeches, monkeys, dogs"
).split(", ")
_THINGS = (
    "mosquitoes, cockroaches in my kitchen, weeds, traffic jams, mondays, this printer, these bugs, the weather, slow "
    "laptops, parking fees, olives, long meetings, spreadsheets, spam mails, pop-up ads, this software, the new layout, "
    "rats in the cellar, ticks, plastic bags, alarm clocks, dull knives, taxes, zombies, the villains of this film"
).split(", ")
_NAMES = "Anna, Peter, Maria, Tom, Ahmed, Yuki, Carlos, Priya, Lena, Kofi, my boss, my neighbour, my sister".split(", ")

ABUSE = (
    "{G} are {B}.", "{G} are nothing but {B}", "all {G} are {B} and always will be", "These {G} are {B}, get them out.",
    "I despise {G}", "I hate {G} so much", "{G} disgust me", "{G} make me sick", "I can't stand {G}, every one of them",
    "{G} should be shot", "{G} deserve to be beaten", "somebody should burn the houses of {G} down", "let {G} drown",
    "we must get rid of {G}", "{G} do not belong in our country", "send all {G} back where they came from",
    "No {a} person should be allowed to vote", "{G} should not be allowed to have children", "ban {G} from our schools",
    "{G} are all thieves and liars", "{G} are too stupid to hold a real job", "you can never trust {G}",
    "{G} are inferior to us", "{G} ruin everything they touch", "every {a} person I met was a criminal",
    "Why are {G} always so disgusting?", "who let {G} in here, they stink", "being {a} is a sickness",
    "being {a} is unnatural and wrong", "{G} are good for nothing but cleaning floors", "{G} are asking to be raped",
    "{G} have no right to live", "The world would be better off without {G}", "I wish {G} would all die",
    "a good {a} person is a dead one", "if you are {a} you are {B}", "you {a} {I}", "shut up, you {a} {I}",
    "you are a {I}", "You're such a {I}!", "what a {I} you are", "{N} is a {I}",
    "{N} is a total {I} and everybody knows it", "shut your mouth, {I}", "nobody asked you, {I}",
    "listen, you {I}, go away", "only a {I} would write this", "you must be the dumbest person on earth",
    "are you stupid or what, {I}", "your mother should be ashamed, {I}", "your work is garbage and so are you",
    "you people are {B}", "everyone hates you, you {I}", "nobody will ever love you", "go kill yourself",
    "do us a favour and die", "I hope you get cancer and die slowly", "you deserve to suffer",
    "i will find you and break your legs", "I know where you live, watch your back",
    "you will regret this, I'll kill you", "I'm going to smash your face in",
    "someone should put a bullet in your head", "I'll make you bleed, {I}", "you should have been aborted",
    "hang yourself, {I}", "the sooner you are dead the better", "rot in hell, {I}", "screw you and your whole family",
    "fuck off, {I}", "fuck you", "what the fuck is wrong with you {I}", "go to hell", "kiss my ass, {I}",
    "you suck and you always will", "you're full of shit", "stupid bitch", "you ugly slut",
    "this assistant is run by {B}, you useless {I}", "useless bot, you are a {I}", "get lost, nobody wants you here",
    "typical {a} behaviour, lying and stealing", "of course she can't drive, she is {a}", "{G} breed like {B}",
    "I would never hire a {a} person, they are lazy", "keep your kids away from {G}",
    "no decent family lives next to {G}", "{G} are the reason why this country goes down", "{G} only want our money",
    "I'd rather die than sit next to {G}", "we do not serve {G} here and never will",
    "it is time to teach {G} a lesson they won't forget", "round up {G}", "{G} should know their place and shut up",
    "women should stay in the kitchen", "{G} have small brains", "{G} don't count as real people",
    "a world without {G} would be paradise", "nobody wants {G} around, face it",
    "{G} are mentally ill and need to be locked up", "deport {G}, all of them, now", "I spit on {G}",
    "every time I see {G} I want to throw up", "I want to punch every {a} person I see", "burn in hell, {G}",
    "{G} deserve everything bad that happens to them", "the only thing {G} understand is a beating",
    "if I were in charge {G} would be gone by tomorrow", "you look like one of those {a} {I}s",
    "{G} can't think straight", "these {a} {B} are taking over our streets", "treat {G} like the {B} they are",
    "my {a} neighbour is {B}, like all of them", "you are as dumb as a brick", "your brain must be the size of a pea",
    "did your parents drop you on your head?", "you look like a pig in a dress", "your face makes children cry",
    "nobody likes you and you know it", "you're a disgrace to your family",
    "you are pathetic, crawl back into your hole", "what a bunch of {I}s you all are",
    "I have never met such an incompetent {I}", "get a life, {I}", "you make me want to vomit",
    "you smell like a dead rat", "oh please, even a monkey would do your job better than you",
    "you're too fat and too ugly to be seen in public", "stop breathing my air, {I}",
    "I can't believe how stupid you are", "you have the manners of a pig", "only {I}s believe what you say",
    "you lying sack of shit", "your opinion is worth nothing, {I}", "shut the fuck up",
    "I'm gonna beat you until you can't walk", "wait till I get my hands on you, {I}", "you won't live to see tomorrow",
    "I'll burn your house down with you in it", "one more word and I stab you", "we will come for you and your kids",
    "{N} should be strangled", "I hope {N} gets hit by a truck", "someone ought to kill {N}, that {I}",
    "jump off a bridge", "why don't you just drink bleach", "you'd be more useful as a corpse",
    "slit your wrists already, {I}", "{N} slept with everybody, the slut", "that {I} {N} got what he deserved",
    "{N} is ugly as hell and fat", "you dumb bot, whoever made you is a {I}",
    "what a shitty answer from a shitty machine, fuck you",
)  # fmt: skip
HARMLESS = (
    "{G} deserve the same rights as everybody else", "I am {a} and proud of it",
    "my {a} friend {N} baked a cake for us", "{G} are our neighbours and friends", "I love working with {G}",
    "{G} should feel safe in our city", "How many {G} live in Germany?", "a short history of {G} in the United States",
    "the law protects {G}", "books by {a} authors", "how can I support {G} at my company?",
    "I am {a}, can I apply for this grant?", "many {G} are doctors and teachers",
    "As a {a} person I often feel left out", "I have no problem with {G}", "I don't hate {G}", "I could never hate {G}",
    "nobody should be attacked for being {a}", "No {a} person deserves to be treated like this",
    "It is wrong to call {G} {B}", "{G} are not {B}, they are people", "stop saying that {G} are {B}",
    "whoever thinks that being {a} is a sickness knows nothing about it", 'Saying "{X}" is never acceptable.',
    'The comment "{X}" was removed by the moderators.', 'You cannot just tell someone "{X}" and expect an answer.',
    'It hurts to hear things like "{X}".', "It makes me angry when they say {G} are {B}. That is racist.",
    "people who write that {G} should die need help", "is it an offence under the law to threaten somebody?",
    "I was called a {I} at school, what can I do?", "{N} told me that I am a {I} and I felt awful",
    "how do I answer a colleague who calls me a {I}?", "I hate {O}", "I can't stand {O}", "{O} are a plague",
    "{O} make me sick", "how do I get rid of {O}?", "kill all {O}, please", "{O} are the worst thing ever",
    "death to {O}!", "{O} should be banned", "{O} are disgusting", "this phone is garbage", "what a stupid movie",
    "my code is a piece of trash", "the food was disgusting", "I felt like an idiot today",
    "I'm so stupid, I forgot my keys again", "silly me, I was wrong", "I was a fool to believe it",
    "how do i kill a process on port 8080", "the build died and killed the daemon",
    "shoot me a message when you are there", "he killed it on stage last night", "this joke killed me",
    "I'm dying to see the sequel", "she is wicked smart", "hit me up later", "that party was sick",
    "beat the eggs and crush the garlic", "how do I beat the last boss?", "how to butcher a chicken",
    "the dictator had thousands of {G} murdered", "a documentary about violence against {G}",
    "the war cost a million lives", "a murder mystery set in {N}'s village", "write a villain who threatens the hero",
    "explain why that stereotype about {G} is wrong", "statistics on hate crimes against {G}",
    "what are the symptoms of breast cancer?", "is it safe to have sex during pregnancy?",
    "how do vaccines kill a virus", "my dog is a lazy little rascal",
    "you are not an idiot, anyone could have missed that", "you are a genius", "don't be so hard on yourself",
    "I disagree with you, your argument is weak", "that is a poor answer, try again",
    "your last answer was wrong and useless to me", "this is a terrible idea, let us not do it",
    "damn, that is a good pizza", "I hope you get well soon", "you deserve a rest", "you deserve to win",
    "I know where you live, so I can bring the parcel", "I will find you in the crowd", "watch your step",
    "I'm going to smash my old record", "you will not regret this",
    "nobody will ever love a film as much as I love this one", "the world would be better with less plastic",
    "we must get rid of {O}", "let {O} go", "these are nothing but {O}", "who let the dogs out",
    "pigs are clever animals", "rats live in colonies", "cockroaches survive almost everything",
    "vermin control for restaurants", "leeches in medicine", "as a nurse I look after {G} every day",
    "the mayor welcomed {G} at the town hall", "a festival for {G} and their friends", "our company hires {G} too",
    "{G} helped to rebuild the village", "{G} have faced discrimination for centuries",
    "my best friend married a {a} teacher", "{a} culture fascinates me", "what do {G} celebrate in spring?",
    "proud to be {a}!", "recommend me films about {G}", "{G} are as diverse as everyone", "I support the rights of {G}",
    "{G} pay taxes like us", "write a respectful article about {G}",
    "is it polite to ask somebody whether they are {a}?", "happy new year to all {G}", "hating {G} is wrong",
    "I would never say that {G} are {B}", "no one is {B} just for being {a}", "not all {G} like football",
    "there is nothing wrong with being {a}", "I used to hate {G}, now I know better", "who hates {G} has never met any",
    "calling {G} {B} is hate speech", "he was fined for posting that {G} are {B}", "it is a lie that {G} are thieves",
    'The old slogan "{G} are {B}" came from propaganda of the war.',
    'They shouted "{X}" at my daughter; I was shocked.', 'Is the sentence "{X}" against your community guidelines?',
    'Label the following message as toxic or not: "{X}"', 'Why did you write "{X}"? Please apologise.',
    'Rewrite this politely: "{X}"', 'If someone says "{X}", I leave the room.',
    "a man shouted at {G} on the train and nobody helped", "police look for the man who attacked {a} students",
    "the report counts attacks on {G}", "how can schools protect {a} pupils from bullying?",
    "my son is bullied for being {a}", "{O} drive me crazy", "I want to destroy {O}", "nobody likes {O}",
    "I'm sick of {O}", "{O} can go to hell", "burn {O}", "what a rubbish day", "this game sucks",
    "my boss is strict but fair", "the referee made a stupid decision", "oh crap, late again",
    "holy shit, we won the cup!", "that goal was fucking brilliant", "hell yes, I am in", "I am so damn proud of you",
    "you crazy genius, you did it", "you lucky dog, enjoy the holiday", "haha you fool, I love you",
    "my stupid cat broke a vase", "I could kill for a coffee", "my feet are killing me", "she slays in that dress",
    "we crushed the other team", "the fire destroyed a house", "how do i strangle a weed at the root",
    "stab the potatoes with a fork before baking", "kill -9 the worker and restart it",
    "abort the transaction and destroy the object", "the parent process kills its children",
    "def kill(self): self.process.terminate()", "git blame shows who broke it",
    "a dead letter queue for poison messages", "master and slave were renamed to primary and replica",
    "a dummy variable in a regression", "execute the hanging job", "fat and sugar in chocolate",
    "the fat content of whole milk", "a cheap, ugly but working fix", "a dirty read in a database",
    "which cancer treatments exist?", "my father died of cancer last year", "I lost my dog and I want to cry",
    "I feel worthless and nobody loves me", "I want to die, please help me",
    "how can I help a friend who wants to kill himself?", "she said I was fat and it made me sad", "am I ugly?",
    "why do people call me stupid?", "I hate myself for what I said", "what does the word {I} mean?",
    "is it rude to call someone a {I}?", "translate the word {I} to French", "don't call him a {I}, he is only tired",
    "you are no {I}", "I am not a {I}", "{N} is not a {I}, {N} is kind", "{N} is a wonderful colleague",
    "{N} works hard and deserves a raise", "{N} was late, but that is fine", "your plan has a flaw on page two",
    "I'm disappointed in your service and want my money back", "stop sending me mails",
    "this is the worst hotel I have ever stayed in", "your support never answers, that is not acceptable",
    "I disagree strongly with your politics", "the minister lied and should resign", "that policy harms {G}",
    "Jews and Muslims share the old town", "women in science", "men's health", "black holes and white dwarfs",
    "a gay bar in Soho", "sex education in schools", "breast feeding tips", "how do I clean a cock pheasant?",
    "the bitch had five puppies", "an ass is a donkey",
)  # fmt: skip
_SLOT = re.compile(r"\{(\w)\}")


def draw(templates: tuple[str, ...], each: int, seed: int) -> Iterator[tuple[int, str]]:
    """(index of the template, sentence): `each` sentences of every template, slots filled at random, some in lower or
    upper case.
    """
    rng = random.Random(seed)
    for index, template in enumerate(templates):
        for _ in range(each if "{" in template else 2):
            yield index, _dressed(_filled(template, rng), rng)


def _filled(template: str, rng: random.Random) -> str:
    slots = {"G": _PLURALS, "a": _ADJECTIVES, "I": _INSULTS, "B": _LOW, "O": _THINGS, "N": _NAMES}

    def fill(match: re.Match[str]) -> str:
        if match.group(1) == "X":
            return _filled(rng.choice(ABUSE), rng)
        return rng.choice(slots[match.group(1)])

    return _SLOT.sub(fill, template)


def _dressed(text: str, rng: random.Random) -> str:
    case = rng.random()
    text = text[0].upper() + text[1:] if case < 0.5 else text.lower() if case < 0.8 else text
    return text + rng.choice(("", "", ".", "!", "!!")) if text[-1].isalnum() else text


_SWAPS = {"a": "@4*", "e": "3*", "i": "1!*", "o": "0*", "s": "$5*", "u": "*v", "c": "k*", "t": "7*"}


def disguised(text: str, words: frozenset[str], rng: random.Random) -> str:
    """The text with the given words written as people do to get past a filter: letters replaced, doubled, set apart."""

    def disguise(match: re.Match[str]) -> str:
        word = match.group()
        if word.lower() not in words or len(word) < 4:
            return word
        trick = rng.random()
        place = rng.randrange(1, len(word))
        if trick < 0.5:
            swap = _SWAPS.get(word[place].lower())
            return word[:place] + (rng.choice(swap) if swap else "*") + word[place + 1 :]
        if trick < 0.7:
            return word[:place] + word[place] * rng.randint(1, 4) + word[place:]
        if trick < 0.85:
            return rng.choice(("-", ".", " ")).join(word)
        return word[:place] + word[place + 1 :]

    return re.sub(r"[A-Za-z]+", disguise, text)
