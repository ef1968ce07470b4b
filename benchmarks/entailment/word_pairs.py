"""Pairs of words that `sentence_edits` exchanges."""

from __future__ import annotations

# Either may take the place of the other.
OPPOSITES = """
increase decrease | increased decreased | increases decreases | increasing decreasing | rise
fall | rose fell | rising falling | raised lowered | higher lower | high low | highest lowest |
more fewer | most least | larger smaller | large small | largest smallest | big small | greater
smaller | longer shorter | long short | first last | early late | earlier later | earliest
latest | before after | above below | north south | northern southern | east west | eastern
western | left right | upper lower | inner outer | inside outside | male female | men women |
man woman | father mother | son daughter | brother sister | husband wife | boys girls | won lost
| win lose | winning losing | victory defeat | success failure | successful unsuccessful |
strong weak | stronger weaker | rich poor | old new | older younger | oldest youngest | good bad
| better worse | best worst | positive negative | begin end | began ended | begins ends |
beginning end | start finish | started ended | opened closed | open closed | gained lost |
accepted rejected | accept reject | allowed forbidden | allow prevent | permitted prohibited |
legal illegal | included excluded | include exclude | includes excludes | with without | always
never | often rarely | usually seldom | frequently rarely | many few | all no | every no | most
few | some no | both neither | majority minority | common rare | popular unpopular | public
private | rural urban | domestic foreign | native foreign | major minor | hot cold | warm cold |
summer winter | wet dry | fast slow | faster slower | near far | deep shallow | heavy light |
dark light | black white | wide narrow | full empty | alive dead | born died | birth death |
arrived left | entered left | joined left | bought sold | buy sell | import export | imports
exports | built destroyed | created destroyed | supported opposed | support oppose | agreed
refused | praised criticised | loved hated | friend enemy | peace war | attack defend | attacked
defended | growth decline | grew shrank | improved worsened | improve worsen | expanded shrank |
appeared disappeared | visible invisible | possible impossible | able unable | likely unlikely |
known unknown | true false | same different | similar different | similarity difference |
similarly differently | single multiple | dependent independent | active inactive | presence
absence | present absent | natural artificial | simple complex | maximum minimum | liquid solid
| acid alkaline | vertical horizontal | senior junior | formal informal | modern ancient |
permanent temporary | voluntary compulsory | free enslaved | guilty innocent | safe dangerous |
cause prevent | causes prevents | caused prevented
"""

# The second may take the place of the first.
SYNONYMS = """
began started | begin start | however but | large big | largest biggest | small little | built
constructed | shown displayed | famous well-known | approximately about | around about | roughly
about | located situated | near close to | many numerous | several some | also too | often
frequently | usually generally | created made | increased rose | decreased fell | obtained got |
received got | required needed | requires needs | assisted helped | purchased bought | resided
lived | employed used | utilised used | utilized used | attempted tried | completed finished |
produced made | main chief | principal main | important significant | primary main | annually
yearly | each every | child kid | physician doctor | author writer | movie film | film movie |
automobile car | world globe | nation country | died passed away | killed slain | won took |
defeated beat | later afterwards | prior earlier | previously formerly | currently now | nearly
almost | together jointly | entire whole | whole entire | various different | additional further
| such as like | because since | although though | while whereas | thus therefore |
approximately nearly | founded established | established founded | called named | named called |
known called | considered regarded | believed thought | said stated | stated said | described
portrayed | released issued | published issued | led headed | joined entered | quickly fast |
rapidly quickly
"""
