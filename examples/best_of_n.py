"""A method of one's own: best of n, decided by a vote in which a value weighs every solution."""

from math import prod

import dspy

from signatures import EstimateValue, Lookahead, NumberScale
from stl_programs import Environment, Policy, SearchProgram, State, Task, Transition, Value, run_sync, run_tasks
from stl_programs.search.parts import vote
from stl_programs.testing import ScriptedModel, answering


class Products(Environment):
    name, max_depth, scale = "products", 1, NumberScale(1, 10)             # one step is a whole solution
    policy_signature = dspy.Signature("task -> action", "Work it out in one line, and end the line with the answer.")
    value_signature, lookahead_signature = EstimateValue, Lookahead

    def task(self, text):                                                  # "17 * 24"
        return Task(text, text)

    def reset(self, task):
        return State("nothing yet")

    def step(self, state, action):
        return Transition(state.then(action.text, action.text, terminal=True), terminated=True)

    def answer(self, task, state):
        return state.text.split()[-1].strip(".")

    def _score(self, task, answer):                                        # a search never sees it
        return float(answer == str(prod(map(int, task.text.split("*")))))


class BestOfN(SearchProgram):
    """All solutions that the policy draws; each votes for its answer with its worth."""

    choose = vote

    async def grow(self, tree):
        for node in await self.expand(tree, tree.root):                    # drawn in one request, then judged
            node.kept = True                                               # it has a vote


def play(inputs, seed):
    right, slip, fooled = prod(map(int, inputs["task"].split("*"))), (0, 0, 0, 1, 10, 20, 100)[seed % 7], seed % 5 == 0
    score = "9" if inputs.get("state", "").endswith(f"= {right}") != fooled else "2"
    return {"action": f"{inputs['task']} = {right + slip}", "rationale": "It was reckoned again.", "score": score}


# A fake that slips and errs; real ones are SOLVER, JUDGE = "openai/gpt-4o-mini", "openai/gpt-4o".
SOLVER = JUDGE = ScriptedModel("scripted/arithmetic", answering(play))
env = Products()
value = Value(env.value_signature, JUDGE, samples=3, aggregate="mean")
tasks = [env.task(f"{one} * {other}") for one in range(12, 20) for other in range(21, 26)]
for n in (1, 4, 16):
    program = BestOfN(env, Policy(env.policy_signature, SOLVER, samples=n, count=n, distinct=False), value)
    results = run_sync(run_tasks(program, tasks))
    right = sum(env.score(task, result.answer) for task, result in zip(tasks, results, strict=True))
    print(f"n = {n:2}: {right:.0f} of {len(tasks)} right")
