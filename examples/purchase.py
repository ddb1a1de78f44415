"""An action that cannot be undone: a search judges what each ticket would be, and only the chosen one is bought."""

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import Action, BeamSearch, Environment, LegalMoves, State, Task, Transition, Value
from stl_programs.errors import TaskError
from stl_programs.testing import ScriptedModel, answering

TRAINS = {"7:10": (59, 9), "9:40": (24, 12), "10:15": (31, 13), "13:30": (19, 16)}      # euros, hour of arrival


class Trains(Environment):
    name, max_depth, scale = "trains", 2, NumberScale(1, 10)
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead
    bought = ()

    def task(self, text):                                      # "there by 13 for 30 euros"
        return Task(text, text)

    def reset(self, task):
        return State(f"Trains at {', '.join(TRAINS)}")

    def legal_actions(self, state):
        return [self.action(state, f"buy {state.data}")] if state.data else [Action(f"see {at}") for at in TRAINS]

    def action(self, state, text):
        return Action(text, irreversible=text == f"buy {state.data}")

    def step(self, state, action):                             # what cannot be undone never comes here
        at = action.text.removeprefix("see ")
        if state.data or at not in TRAINS:
            raise TaskError(f"{action.text!r} is not possible at {state.text!r}")
        return Transition(state.then(action.text, f"{at}, {TRAINS[at][0]} euros, there at {TRAINS[at][1]}", data=at))

    async def commit(self, task, state, action):               # it comes here, once, after the search
        self.bought += (state.data,)
        return Transition(state.then(action.text, "Have a good journey.", terminal=True), terminated=True)

    def answer(self, task, state):
        return state.history[-1].removeprefix("buy ") if state.history else ""

    def _score(self, task, answer):
        words, (price, arrival) = task.text.split(), TRAINS.get(answer, (1000, 24))
        return float(arrival <= int(words[2]) and price <= int(words[4]))


def read_page(inputs, seed):
    words, page = inputs["task"].split(), inputs["state"].split()
    fits = "euros," in page and int(page[5]) <= int(words[2]) and int(page[1]) <= int(words[4])
    return {"rationale": "Time and price were compared.", "score": "9" if fits else "2"}


# A fake that compares numbers; a real one is MODEL = "openai/gpt-4o".
MODEL = ScriptedModel("scripted/reader", answering(read_page))
env = Trains()
program = BeamSearch(env, LegalMoves(), Value(env.value_signature, MODEL, samples=1), width=2)
prediction = program(task="there by 13 for 30 euros")
print(prediction.tree.render(only_kept=False), f"chosen: {prediction.untaken} | bought: {env.bought}", sep="\n")
prediction = program(task="there by 13 for 30 euros", commit=True)  # searches again, and buys
print("answer:", prediction.answer, "| bought:", env.bought)
