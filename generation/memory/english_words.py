"""English words by their function in questions, in lower case and without endings like n't."""

from __future__ import annotations


def words_of(words: str) -> frozenset[str]:
    """Returns the set of words in a text."""
    return frozenset(words.split())


# English words that hardly occur in other languages.
ENGLISH = words_of(
    "how what why when where which who the does are can could should would and with it this "
    "there from"
)
WH = words_of("what why how which who whom whose")
AUXILIARIES = words_of(
    "is are was were am be been do does did can could should would will shall may might must has "
    "have had ca wo dont doesnt isnt cant wont"
)
REQUESTS = words_of("tell show give explain")
IMPERATIVES = REQUESTS | words_of("list describe compare define summarize find write")
PERSONS = words_of("i me my mine we us our you your yours one someone people everybody anyone")
PRONOUNS = words_of(
    "it its itself they them their theirs themselves he him his she her hers this these those"
)
OWN = words_of("its itself they their theirs themselves")
DETERMINERS = words_of("a an the my your our some any this that these those each every all both")
PREPOSITIONS = words_of(
    "with without for in on at from to by using via under over after before during between "
    "through into onto as than like inside outside within except besides against per about of"
)
JOINS = words_of(
    "and but or so then also plus now nor not if unless until while because since when"
)
FILLERS = words_of(
    "please just even still only very much many more most less too well again instead either "
    "though else other others another same such there here where whether ok okay thanks thank sure "
    "really exactly actually mean meant yes no out up off that anything something everything"
)
# Words for actions on a thing or statements about it, which do not name the thing.
LIGHT_VERBS = words_of(
    "use used using work works working happen happens happening mean means make makes get gets "
    "getting go goes want need needs know see say said think try look come take takes let put "
    "called elaborate"
)
FUNCTION = (
    WH
    | AUXILIARIES
    | REQUESTS
    | PERSONS
    | PRONOUNS
    | DETERMINERS
    | PREPOSITIONS
    | JOINS
    | FILLERS
    | LIGHT_VERBS
)
# Properties that every thing has, so that they identify none: "what is the default?"
GENERIC = words_of(
    "default defaults value values reason reasons limit limits limitation limitations syntax "
    "example examples argument arguments parameter parameters option options exception exceptions "
    "error errors result results output input type types name names size cost price complexity "
    "advantage advantages disadvantage disadvantages drawback drawbacks benefit benefits downside "
    "downsides purpose alternative alternatives version versions order performance signature way "
    "ways method methods function functions call step steps difference differences maximum minimum "
    "requirement requirements detail details case cases side effect effects risk risks"
)
GENERIC_TRAITS = words_of(
    "return returns returned accept accepts accepted raise raises raised throw throws thrown "
    "support supports supported need needed require required allow allowed fail fails failed "
    "faster slower fast slow better best worse safer safe simpler easier recommended deprecated "
    "possible long often big large important common"
)
