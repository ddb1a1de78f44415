"""A world of one's own: sort a stack of pancakes by flipping the top ones over. Checked, then searched."""

from itertools import pairwise

from signatures import EstimateValue, Lookahead, NumberScale, ProposeActions
from stl_programs import Action, BeamSearch, Environment, LegalMoves, State, Task, Transition, Value, check_environment
from stl_programs.errors import TaskError
from stl_programs.testing import ScriptedModel, answering


class Pancakes(Environment):
    name, max_depth, scale, cyclic = "pancakes", 8, NumberScale(1, 10), True   # a flip can be flipped back: cycles
    policy_signature, value_signature, lookahead_signature = ProposeActions, EstimateValue, Lookahead

    def task(self, text):                                      # "3 1 2": sizes, from the top
        if sorted(text.split()) != [str(size) for size in range(1, len(text.split()) + 1)]:
            raise TaskError(f"{text!r} is no stack; write the sizes from 1 to 9 at most, each once: '3 1 2'")
        return Task(text, text)

    def reset(self, task):
        return State(task.text, terminal=task.text.split() == sorted(task.text.split()))

    def legal_actions(self, state):
        return [] if state.terminal else [Action(f"flip {n}") for n in range(2, len(state.text.split()) + 1)]

    def step(self, state, action):
        if action not in self.legal_actions(state):
            raise TaskError(f"{action.text!r}: write 'flip N', N from 2 to {len(state.text.split())}")
        stack, count = state.text.split(), int(action.text.split()[1])
        stack = stack[:count][::-1] + stack[count:]
        after = state.then(action.text, " ".join(stack), terminal=stack == sorted(stack))
        return Transition(after, terminated=after.terminal)

    def answer(self, task, state):
        return ", ".join(state.history)

    def _score(self, task, answer):                            # the true reward: a search never sees it
        state = self.reset(task)
        for flip in filter(None, answer.split(", ")):
            state = self.step(state, Action(flip)).state
        return float(state.terminal)


def count_neighbours(inputs, seed):
    stack = [*map(int, inputs["state"].split()), len(inputs["state"].split()) + 1]
    gaps = sum(abs(one - other) > 1 for one, other in pairwise(stack))
    return {"rationale": f"{gaps} neighbours do not belong together.", "score": str(10 - gaps)}


# A fake that counts neighbours; a real one is MODEL = "openai/gpt-4o".
MODEL = ScriptedModel("scripted/neighbours", answering(count_neighbours))
env = Pancakes()
print("findings:", check_environment(env, tasks=["3 1 2", "2 5 3 1 4"]))         # random play: [] where all is well

prediction = BeamSearch(env, LegalMoves(), Value(env.value_signature, MODEL, samples=1), width=3)(task="2 5 3 1 6 4")
tree = prediction.tree
print(prediction.answer)
print(" -> ".join(node.state.text for node in tree.path(tree.nodes[tree.about["chosen"]])))
