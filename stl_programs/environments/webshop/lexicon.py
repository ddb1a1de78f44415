"""Lists of words: of the reward, and of the light tagger."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COLOURS = _words("""
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy
    camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral
    cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass
    gray green grey heather indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon
    mauve merlot midnight mint mocha multicolor mushroom mustard natural navy nude olive orange peach pewter
    pink plum purple rainbow red rose royal rust sand sapphire seashell silver skull slate steel stone
    stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow
    """)
"""By the alphabet; what the reward takes for the colour of an option."""
NEVER_NOUNS = frozenset(_words("""
    a an the this that these those each every all both any some no not never i you he she it we they me my
    your his her its our their and or but nor so yet if as than when while where who which what whose how why
    of in on at by to from for with without within into onto over under off out up down about after before
    between through during above below against per via near plus upon around along across behind beyond like
    except until since is are was were be been being am has have had do does did can could will would shall
    should may might must one two three four five six seven eight nine ten dozen hundred x etc very too also
    just only more most less much many few other another such same own made
    """))
"""With capitals or without: function words, and numbers in words."""
NOT_IN_LOWER_CASE = frozenset(_words("""
    new big small large medium mini long short tall high low wide thin thick heavy soft hard warm cool cold
    hot dry wet clean clear dark deep bright fresh sweet rich pure raw fine great good best better nice easy
    quick fast slow strong light full free real true double single multiple perfect ideal unique natural
    organic vintage modern classic elegant cute sexy casual formal loose slim tight straight solid plain round
    square flat black white red blue green brown grey gray pink purple yellow orange beige navy golden silver
    available compatible suitable use used using make makes keep keeps get gets give gives help helps fit fits
    wear bring brings hang come comes go let see find buy enjoy choose include includes included provide
    provides add adds protect protects reduce reduces improve improves remove removes prevent prevents replace
    replaces support supports need needs want set made based inspired designed printed
    """))
"""Common adjectives and verbs."""
ADJECTIVE_ENDINGS = ("able", "ible", "ful", "less", "ous", "ive", "ical", "ically", "ly", "ed", "ish", "est")
UNITS = ("km", "m", "dm", "cm", "mm", "nm", "ft", "in", "yd", "mi", "kg", "g", "mg", "t", "lb", "oz", "mb", "kb", "gb",
         "tb", "k")
"""That spaCy's tokenizer splits from their number."""
