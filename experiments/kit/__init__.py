"""What every experiment uses: evaluation, statistics, report, tracking, progress, commands."""
