"""A small model teaches itself to value Game of 24: no reward, no demonstration.

The model ships with the package. Another one is a directory, MODEL = "local/DIR", or a served name with the directory
of its weights: SelfTaughtLookahead(weights="DIR"). What is finished stands in runs/teach, and is not done again.
"""

from optimizers import SelfTaughtLookahead
from stl_programs import BeamSearch, GameOf24, LegalMoves, Value, run_sync, run_tasks

MODEL = "embedded/game24"

env = GameOf24()
value = Value(env.value_signature, MODEL, samples=3, aggregate="mean")
program = BeamSearch(env, LegalMoves(), value, width=2)

stl = SelfTaughtLookahead(iterations=1, tasks_per_iteration=10, run_dir="runs/teach")
taught = stl.compile(program, trainset=env.tasks("train"))     # `program` stays as it is
print("a new version of the model:", taught.value.lm)

puzzles = env.tasks("validation")[:25]
for name, search in {"before": program, "after": taught}.items():
    results = run_sync(run_tasks(search, puzzles))
    solved = sum(env.score(puzzle, result.answer)              # the true reward: asked when the searches are over
                 for puzzle, result in zip(puzzles, results, strict=True))
    print(f"{name}: {solved:.0f} of {len(puzzles)} solved")

tree = taught(task="4 5 6 10").tree
for node in tree.path(tree.nodes[tree.about["chosen"]])[1:]:   # what it says of the states on its way
    print(f"{node.action:18} {node.estimate.score:6.2f}  {node.estimate.rationale}")
taught.save("runs/teach/program.json")                         # JSON beside the adapter's folder
