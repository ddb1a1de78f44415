"""What every experiment uses: evaluation, statistics, report, tracking, progress, commands."""

from stl_programs.extras import EXTRAS, need

need("the experiment kit", *EXTRAS["report"])
