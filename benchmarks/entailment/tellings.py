"""Ways to tell a fact, by its kind; see `words` for the slots."""

from __future__ import annotations

# An effect of a thing on a quantity, in the direction of the fact.
EFFECT = """
{A} {U} {B} | {A} {U} {B} | {A} {U} {B} in {G} | {W} {Ub} {B} | {W} resulted in {u} {B} | {W}
led to {u} {B} | {B} was {u} by {A} | {B} was {u} in {P} given {A} compared with controls | {P}
that received {A} showed {u} {B} | {P} with {A} had {u} {B} than those without | {A} was
associated with {u} {B} | {u} {B} was observed after {A} | there was a significant {noun} in {B}
with {A} | {A} causes {a_noun} in {B} | {K} {n_past} {B} | {K} resulted in {n} {B} | {K} led to
{a_noun_n} in {B} | {n} {B} was seen in {P} lacking {A} | without {A}, {B} was {n} | {B} {went}
after {A} | {B} {went} from {x} to {y} with {A} | {P} without {A} had {n} {B} | {A} acts as a
{role} of {B} | {need}
"""

NO_EFFECT = """
{A} does not affect {B} | {A} has no effect on {B} | {A} did not change {B} | {B} was unchanged
by {A} | {B} was not affected by {A} | {A} failed to alter {B} | there was no significant
difference in {B} between {P} given {A} and controls | {B} was similar with and without {A} |
{A} was not associated with {B} | {A} plays no role in {B} | {A} is not involved in {B} | {B}
does not depend on {A} | {B} is independent of {A} | {K} had no effect on {B} | {K} did not
alter {B} | {A} is not required for {B} | {A} is dispensable for {B} | {B} was {x} with {A} and
{x} without | no association was found between {A} and {B}
"""

# Denials of one direction.
NOT_SO = """
{A} does not {I} {B} | {A} did not {I} {B} | {A} fails to {I} {B} | {B} is not {u} by {A} |
there was no {noun} in {B} with {A}
"""

# Tell no direction.
SOME_EFFECT = """
{A} affects {B} | {A} plays a role in {B} | {A} is involved in {B} | {A} has an effect on {B} |
{A} influences {B} | {B} depends on {A} | {A} is associated with {B} | {A} is linked to {B} |
{A} contributes to {B} | {A} regulates {B}
"""

RISK_UP = """
{A} increases the risk of {D} | {A} is a risk factor for {D} | {D} is more common in {P} with
{A} | {P} with {A} are more likely to develop {D} | {A} was associated with a higher incidence
of {D} | the rate of {D} was higher with {A} (relative risk {above}) | {A} predisposes to {D} |
{A} causes {D} | the hazard ratio of {D} was {above} for {A} | {A} worsens {D} | {A} promotes
{D} | {P} without {A} had fewer cases of {D} | absence of {A} protects against {D} | {A} makes
{D} more likely | {D} occurred in {big} of {P} with {A} and {small} of controls
"""

RISK_DOWN = """
{A} reduces the risk of {D} | {A} protects against {D} | {D} is less common in {P} with {A} |
{P} with {A} are less likely to develop {D} | {A} was associated with a lower incidence of {D} |
the rate of {D} was lower with {A} (relative risk {below}) | {A} prevents {D} | {A} is effective
against {D} | the hazard ratio of {D} was {below} for {A} | {A} improves outcomes in {D} | {A}
is beneficial in {D} | {P} without {A} had more cases of {D} | lack of {A} increases the risk of
{D} | {A} makes {D} less likely | {D} occurred in {small} of {P} with {A} and {big} of controls
"""

RISK_NONE = """
{A} does not affect the risk of {D} | {A} has no influence on {D} | the incidence of {D} did not
differ between {P} with {A} and controls | {A} is not associated with {D} | no link between {A}
and {D} was found | the rate of {D} was similar in {P} with and without {A} | {A} was
ineffective against {D} | {D} is unrelated to {A} | the hazard ratio of {D} was 1.0 for {A}
"""

RISK_SOME = """
{A} affects the risk of {D} | {A} is associated with {D} | {D} is related to {A} | {A} plays a
part in {D}
"""

# The first is better.
MORE_THAN = """
{A} is more effective than {C} against {D} | {A} works better than {C} in {D} | {C} is less
effective than {A} in treating {D} | {A} was superior to {C} for {D} | {C} was inferior to {A}
in {D} | outcomes of {D} were better with {A} than with {C} | outcomes of {D} were worse with
{C} than with {A} | {big} of {P} recovered from {D} with {A} compared with {small} with {C} |
compared with {C}, {A} led to greater improvement of {D} | {P} given {A} recovered faster from
{D} than those given {C} | {A} is to be preferred to {C} in {D} | {A} outperformed {C} in {D}
"""

EQUAL = """
{A} and {C} are equally effective against {D} | {A} is as effective as {C} in {D} | there was no
difference between {A} and {C} in the treatment of {D} | outcomes of {D} were similar with {A}
and {C} | {A} was no better than {C} for {D} | {C} was not inferior to {A} in {D}
"""

# Tellings of {need}, for each direction.
NEED = """
{A} is required for {B} | {A} is essential for {B} | {A} is necessary for {B} | {A} drives {B} |
{B} requires {A} | {A} is critical for {B} | {A} supports {B} | {A} maintains {B} | {A} induces
{B} | {A} triggers {B} | {A} mediates {B} | {A} activates {B}
"""

AGAINST = """
{A} antagonises {B} | {A} is a barrier to {B} | {A} counteracts {B} | {A} represses {B} | {A}
restrains {B} | {A} interferes with {B} | {A} protects from {B} | {A} stops {B} | {A} silences
{B} | {A} disrupts {B}
"""

# Statements and their opposites; a "||" is between them.
TWINS = """
{A} is found in {G} | {A} occurs in {G} | {A} is present in {G} | {A} was detected in {G} | {G}
contain {A} || {A} is absent from {G} | {A} is not found in {G} | no {A} was detected in {G} |
{A} does not occur in {G} | {G} lack {A}

most {P} with {D} have {A} | the majority of {P} with {D} have {A} | {A} is common in {D} |
{big} of {P} with {D} have {A} || few {P} with {D} have {A} | {A} is rare in {D} | only {small}
of {P} with {D} have {A} | a minority of {P} with {D} have {A}

{B} increases with age | {B} is higher in the old than in the young | older {P} have higher {B}
| {B} is lower in young {P} || {B} decreases with age | {B} declines in the old | younger {P}
have higher {B} | {B} is higher in young {P}

{A} is safe in {G} | {A} is well tolerated by {G} | {A} has no side effects in {G} | no adverse
events of {A} were seen in {G} || {A} is toxic to {G} | {A} causes side effects in {G} | {A} is
harmful to {G} | adverse events of {A} were frequent in {G}

{A} is a reliable marker of {D} | {A} predicts {D} | {A} identifies {P} with {D} | {A} is a good
indicator of {D} || {A} does not predict {D} | {A} is of no use in the diagnosis of {D} | {A} is
a poor marker of {D} | {A} cannot identify {P} with {D}

{A} acts before {C} | {A} comes before {C} | {C} follows {A} | {A} is upstream of {C} || {C}
acts before {A} | {C} precedes {A} | {A} follows {C} | {A} is downstream of {C}

{A} binds {C} | {A} interacts with {C} | there is an interaction of {A} with {C} | {A} forms a
complex with {C} || {A} does not bind {C} | {A} does not interact with {C} | no interaction of
{A} with {C} was found | {A} and {C} are not in one complex

{B} rose over the last decade | {B} has grown since {year} | {B} was higher in {later} than in
{year} | the trend of {B} is upward || {B} fell over the last decade | {B} has declined since
{year} | {B} was lower in {later} than in {year} | the trend of {B} is downward

{B} is the same in men and women | men and women do not differ in {B} || {B} differs between men
and women | {B} is higher in men than in women | women have higher {B} than men

{A} alone is sufficient for {B} | {A} suffices for {B} || {A} alone is not sufficient for {B} |
{A} does not suffice for {B}

all {P} with {A} had {D} | every one of the {P} with {A} had {D} || none of the {P} with {A} had
{D} | not all {P} with {A} had {D}

{A} is cheaper than {C} | {A} costs less than {C} | {C} is more expensive than {A} || {A} is
more expensive than {C} | {A} costs more than {C} | {C} is cheaper than {A}

{A} acts early in {D} | {A} is important at the onset of {D} || {A} acts late in {D} | {A} is
important only at the end of {D}

{A} is independent of {C} | {A} works without {C} || {A} depends on {C} | {A} requires {C} | {A}
needs {C}
"""
