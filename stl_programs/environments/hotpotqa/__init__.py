"""Questions that need two articles of an encyclopedia: offline, from files, or over a live MediaWiki."""

from stl_programs.environments.hotpotqa.live import LiveWiki
from stl_programs.environments.hotpotqa.metrics import exact_match, f1, normal
from stl_programs.environments.hotpotqa.questions import Question, read_questions
from stl_programs.environments.hotpotqa.wiki import Wiki
from stl_programs.environments.hotpotqa.world import HotpotQA

__all__ = ["HotpotQA", "LiveWiki", "Question", "Wiki", "exact_match", "f1", "normal", "read_questions"]
