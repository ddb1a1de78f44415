"""Which search makes the most of a budget? Three of them on the same puzzles, with the same model.

The model ships with the package; MODEL = "openai/gpt-4o" or "hosted_vllm/NAME" asks another one.
"""

from stl_programs import MCTS, BeamSearch, BestFirstSearch, Budget, GameOf24, LegalMoves, Value, run_sync, run_tasks

MODEL = "embedded/game24"
BUDGET = Budget(calls=60)                                      # of every puzzle
PUZZLES = 15

env = GameOf24()
policy, value = LegalMoves(), Value(env.value_signature, MODEL, samples=3, aggregate="mean")
searches = {
    "beam search": BeamSearch(env, policy, value, width=3, budget=BUDGET),
    "best first": BestFirstSearch(env, policy, value, expansions=100, budget=BUDGET),
    "MCTS": MCTS(env, policy, value, simulations=100, exploration=0.3, budget=BUDGET)}
puzzles = env.tasks("validation")[:PUZZLES]

print(f"{PUZZLES} puzzles, at most {BUDGET.calls} calls each")
print(f"{'search':12}{'solved':>8}{'calls':>8}{'tokens':>9}{'cut off':>9}")
for name, program in searches.items():
    results = run_sync(run_tasks(program, puzzles))            # all puzzles side by side
    usage = [result.usage["value"] for result in results]
    calls, tokens = (sum(one[what] for one in usage) for what in ("calls", "completion_tokens"))
    cut_off = sum(result.ended is not None for result in results)
    solved = sum(env.solved(env.score(puzzle, result.answer))  # the true reward: asked when the searches are over
                 for puzzle, result in zip(puzzles, results, strict=True))
    print(f"{name:12}{solved:8}{calls:8}{tokens:9}{cut_off:9}")
