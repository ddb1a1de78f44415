"""WebShop: what a shopper is asked on a page, and how its answers are scaled (paper, appendix D)."""

from __future__ import annotations

import dspy

from signatures.scales import LabelScale, NumberScale

SCALE = NumberScale(1.0, 10.0)
"""Of a page on the way to a purchase; prompts name six points of it."""
OPTION_SCALE = LabelScale((("1", -2.0), ("2", -1.0), ("3", 1.0), ("4", 2.0)))
"""Of a chosen option, added to what the product was worth before."""


class ChooseOnPage(dspy.Signature):
    """Shop for what the instruction describes: say which action on this page brings the purchase closest.

    Weigh kind, attributes, options and price limit against what the page shows, and give your reason first. Every
    action must be one of the possible actions, word for word; where a search is possible, write your own short keywords
    into it, without the price. Repeat nothing of the not-allowed list.
    """

    task: str = dspy.InputField(desc="the instruction: what to buy, and for how much at most")
    trajectory: str = dspy.InputField(desc="the actions so far")
    state: str = dspy.InputField(desc="the page that is open")
    possible_actions: list[str] = dspy.InputField(desc="what can be done on this page")
    not_allowed: list[str] = dspy.InputField(desc="actions that were already proposed")
    count: int = dspy.InputField(desc="how many distinct actions are wanted, best first")
    rationale: str = dspy.OutputField(desc="why these actions, in at most 60 words")
    actions: list[str] = dspy.OutputField()


class EstimatePage(dspy.Signature):
    """Judge how likely the last action, and the page it led to, end in buying exactly what the instruction describes.

    Compare kind, attributes, options and price first, in at most 100 words. Options count as unselected unless the
    actions so far selected them. Then score:
    1: it has nothing to do with the instruction; 2: the right purchase is unlikely from here; 4: possible;
    6: likely; 8: very likely; 10: this leads to the right purchase for certain.
    """

    task: str = dspy.InputField(desc="the instruction: what to buy, and for how much at most")
    trajectory: str = dspy.InputField(desc="the actions so far")
    last_action: str = dspy.InputField()
    state: str = dspy.InputField(desc="the page that it led to")
    rationale: str = dspy.OutputField(desc="what fits the instruction and what does not")
    score: str = dspy.OutputField(desc="one of 1, 2, 4, 6, 8, 10")


class EstimateOption(dspy.Signature):
    """Judge the option that was just selected on a product's page against the instruction, in at most 100 words.

    Score: 1: it contradicts the instruction; 2: the instruction does not ask for it; 3: the instruction asks for it,
    and other things it asks for are not selected yet; 4: the instruction asks for it, and now all it asks for is
    selected.
    """

    task: str = dspy.InputField(desc="the instruction: what to buy, and for how much at most")
    trajectory: str = dspy.InputField(desc="the actions so far")
    last_action: str = dspy.InputField(desc="the selection to judge")
    state: str = dspy.InputField(desc="the product's page; [[selected]] options are in double brackets")
    rationale: str = dspy.OutputField(desc="what the selection has to do with the instruction")
    score: str = dspy.OutputField(desc="one of 1, 2, 3, 4")


class LookaheadPage(dspy.Signature):
    """Judge the current state of a shopping trip by looking one action ahead.

    Name the best next action, the page it leads to, and why that page is worth its score. After the purchase, action
    and page are "none".
    """

    task: str = dspy.InputField(desc="the instruction: what to buy, and for how much at most")
    trajectory: str = dspy.InputField(desc="the actions so far")
    last_action: str = dspy.InputField()
    state: str = dspy.InputField(desc="the page that it led to")
    best_action: str = dspy.OutputField()
    next_state: str = dspy.OutputField(desc="the page after the best action")
    rationale: str = dspy.OutputField(desc="why that page is worth its score")
    score: str = dspy.OutputField(desc="a number from 1 (hopeless) to 10 (certain)")


class LookaheadOption(LookaheadPage):
    """Judge the option that was just selected on a product's page by looking one action ahead.

    Name the best next action, the page it leads to, and why. The score says what the selection adds to the product:
    1: contradicts the instruction; 2: not asked for; 3: asked for, more is missing; 4: asked for, nothing is missing.
    """

    score: str = dspy.OutputField(desc="one of 1, 2, 3, 4")


_TRIP = "search[walnut serving tray with handles]\nclick[z0tray0001]"
_TRAY = ("\n[Back to Search] \n[< Prev] \nsize [small][large]\nHollin Grove Walnut Serving Tray with Handles \n"
         "Price: $34.0 \nRating: N.A. \n[Description] \n[Features] \n[Reviews] \n[Buy Now] ")
_WANTED = "i need a large walnut serving tray with handles, and price lower than 50.00 dollars"

POLICY_EXAMPLES = (
    dspy.Example(task=_WANTED, trajectory="none", state=f"\nWebShop \nInstruction:  \n{_WANTED} \n[Search] ",
                 possible_actions=["search[<keywords>]"], not_allowed=[], count=2,
                 rationale="The kind and its material find it; the size is chosen on its page, and the price checked.",
                 actions=["search[walnut serving tray with handles]", "search[large walnut tray]"]).with_inputs(
        "task", "trajectory", "state", "possible_actions", "not_allowed", "count"),
    dspy.Example(task=_WANTED, trajectory=_TRIP, state=_TRAY,
                 possible_actions=["click[buy now]", "click[small]", "click[large]"], not_allowed=["click[large]"],
                 count=1, rationale="Large was proposed already; of the rest only buying fits a finished choice.",
                 actions=["click[buy now]"]).with_inputs(
        "task", "trajectory", "state", "possible_actions", "not_allowed", "count"))
"""For the policy, of a shop that is in no catalogue: `policy.predict.demos = list(POLICY_EXAMPLES)`."""

VALUE_EXAMPLES = (
    dspy.Example(task=_WANTED, trajectory=_TRIP, last_action="click[z0tray0001]", state=_TRAY,
                 rationale="A walnut tray with handles for $34.00, under 50 dollars; large is offered and not selected "
                           "yet. Only that choice is missing.", score="8").with_inputs(
        "task", "trajectory", "last_action", "state"),
    dspy.Example(task=_WANTED, trajectory="search[tray table]\nclick[z0tabl0007]", last_action="click[z0tabl0007]",
                 state="\n[Back to Search] \n[< Prev] \nFenwick Steel Folding Tray Table \nPrice: $61.5 \nRating: N.A. "
                       "\n[Description] \n[Features] \n[Reviews] \n[Buy Now] ",
                 rationale="A steel table is no walnut tray, has no handles, and costs more than 50 dollars.",
                 score="1").with_inputs("task", "trajectory", "last_action", "state"))
"""For the value of pages."""

OPTION_EXAMPLES = (
    dspy.Example(task=_WANTED, trajectory=f"{_TRIP}\nclick[small]", last_action="click[small]",
                 state=_TRAY.replace("[small]", "[[small]]"),
                 rationale="The instruction asks for a large tray; small contradicts it.", score="1").with_inputs(
        "task", "trajectory", "last_action", "state"),
    dspy.Example(task=_WANTED, trajectory=f"{_TRIP}\nclick[large]", last_action="click[large]",
                 state=_TRAY.replace("[large]", "[[large]]"),
                 rationale="Large is asked for, and size is the only choice there is.", score="4").with_inputs(
        "task", "trajectory", "last_action", "state"))
"""For the value of selected options."""
